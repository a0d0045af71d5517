"""Scores, exact on any number of ranks."""
