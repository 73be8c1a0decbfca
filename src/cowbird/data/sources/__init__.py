"""Dataset sources: one file each; `cowbird list datasets` prints them."""
