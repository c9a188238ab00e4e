"""The agent: what a host may ask of a board, and what it answers."""
