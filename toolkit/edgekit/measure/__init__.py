"""Timing loop, percentiles, spans, parity."""
