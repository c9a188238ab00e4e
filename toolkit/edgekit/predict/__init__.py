"""The latency predictor."""
