"""Metrics on plain arrays; usable on anybody's model."""
