"""Clean ONNX to what one engine reads, one file a backend."""
