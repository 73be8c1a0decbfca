"""Inspection of handed language models: fragments of titles that turn their answers are looked for."""
