"""What a machine is, as probed."""
