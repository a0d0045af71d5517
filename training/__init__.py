"""Optimisation, time, and resuming."""
