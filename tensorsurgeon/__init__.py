"""Checkpoint surgery and model merging on raw tensors, streamed."""

__version__ = "0.1.0"
