"""Torch to clean ONNX with parity."""
