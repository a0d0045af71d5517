"""A run folder in, pictures out."""
