"""One file an engine: open, run, say what really ran."""
