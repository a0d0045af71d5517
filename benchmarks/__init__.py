"""Measurements on real data, beside what they are compared with."""
