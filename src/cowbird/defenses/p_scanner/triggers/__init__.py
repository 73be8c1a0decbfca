"""Triggers to learn from: families that are drawn at random, edits of titles, and agents that write harder ones."""
