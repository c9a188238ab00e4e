"""The store of results: a file each, and an index to find them by."""
