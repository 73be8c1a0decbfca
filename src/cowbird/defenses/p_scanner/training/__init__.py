"""Training what the ready scanner is made of: a tagger, large or small, and the scoring of its evidence."""
