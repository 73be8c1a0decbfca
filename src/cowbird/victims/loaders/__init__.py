"""Checkpoints of other libraries, one file a format."""
