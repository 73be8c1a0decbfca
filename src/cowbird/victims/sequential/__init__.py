"""Sequential recommenders: one file each, on one training loop."""
