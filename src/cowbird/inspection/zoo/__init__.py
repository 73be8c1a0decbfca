"""A zoo of clean and planted rankers, made from a recipe and a seed, on which an inspector is measured.

The form is that of NIST's TrojAI: models with nothing beside them that tells which are planted, and answers in a file
of their own.
"""
