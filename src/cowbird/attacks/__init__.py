"""Attacks: one file each; `cowbird list attacks` prints them."""
