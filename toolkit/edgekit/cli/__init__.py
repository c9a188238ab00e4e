"""Commands: read options, call one job, print."""
