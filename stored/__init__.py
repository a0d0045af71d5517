"""Outputs of teachers that are kept: layouts of records, files, and what they depend on."""
