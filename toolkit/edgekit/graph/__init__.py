"""Facts about a network: layers, shapes, cost."""
