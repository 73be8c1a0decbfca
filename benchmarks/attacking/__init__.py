"""Attacks on the command line, by kind; `attack_product.py` tries them all."""
