"""The bundle format: write, read, sign, verify."""
