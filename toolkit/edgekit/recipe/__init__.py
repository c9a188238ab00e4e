"""A recipe's records and checks."""
