"""Raw files to records, one module a data set: each makes a `source.Source`, which `store.packing.pack` packs."""
