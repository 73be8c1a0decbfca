"""Defenses: one file each; `cowbird list defenses` prints them."""
