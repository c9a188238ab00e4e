"""Files that people fill in: YAML in, checked records out."""
