"""Findings of a scan on a local page, where a person says which are triggers and which are honest text."""
