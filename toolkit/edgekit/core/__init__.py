"""Errors, records, plug-in families, lazy import, digests, step cache, progress."""
