"""Cowbird finds backdoors in recommender systems."""

__version__ = "0.1.0"
