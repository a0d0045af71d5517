"""Splits as they lie on a disk: records, shards, folders."""
