"""Raw files to records, one module a dataset."""
