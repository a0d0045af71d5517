"""Pages: each the difference from another."""
