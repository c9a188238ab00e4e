"""The order of stages of everything edgekit can be asked for."""
