"""Configs: one for each data set, and the table of methods."""
