"""Configs: each the difference from another."""
