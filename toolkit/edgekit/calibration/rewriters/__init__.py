"""One file a group of layers that can be cut: find it, watch it, decompose it, write it anew."""
