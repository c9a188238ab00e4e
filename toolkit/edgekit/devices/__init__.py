"""Device profiles: what a board is, and what edgekit can use on it."""
