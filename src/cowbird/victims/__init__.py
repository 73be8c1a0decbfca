"""The recommenders that are attacked and defended."""
