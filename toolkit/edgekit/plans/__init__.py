"""How the parts of a model run together, and everything decided while it runs."""
