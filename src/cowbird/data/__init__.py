"""Datasets as flat arrays, their splits, and the sources that read them."""
