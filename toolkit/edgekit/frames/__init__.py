"""Frames to a model's inputs, the one reference on host and board alike."""
