"""Outputs to what an app asked for, one file a task."""
