"""One file a compression pass."""
