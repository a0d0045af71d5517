"""The columns of a shard: a zip of NumPy arrays, an entry a record (docs/format.md)."""

from __future__ import annotations

import io

import numpy as np

from dataset.store.record import is_unlabelled, split_ignored
from utils.errors import DataError

COLUMNS = {
    "key": np.uint8,
    "label": np.int32,
    "label_count": np.int32,
    "height": np.int32,
    "width": np.int32,
    "crc32": np.uint32,
}


def parse_columns(data: bytes, records: int, classes: int, *, single: bool) -> dict[str, np.ndarray]:
    """The arrays in ``data``.

    Args:
        data: the file.
        records: in the shard.
        classes: of the split.
        single: whether every record has one label.

    Raises:
        DataError: something is wrong with them; with what it is.
    """
    try:
        with np.load(io.BytesIO(data)) as arrays:
            columns = {name: arrays[name] for name in COLUMNS}
    except Exception as error:  # one that another program wrote may raise any
        raise DataError(f"{type(error).__name__}: {error}") from None
    for name, kind in COLUMNS.items():
        column = columns[name]
        if column.dtype != kind or column.ndim != 1:
            raise DataError(f"{name} is {column.dtype} of {column.ndim} dimensions, not {np.dtype(kind)} of one")
        if name not in ("key", "label") and len(column) != records:
            raise DataError(f"{name} has {len(column)} entries, the shard {records} records")
    counts, labels = columns["label_count"], columns["label"]
    if (counts < 0).any() or counts.sum() != len(labels) or (single and (counts != 1).any()):
        raise DataError("label and label_count disagree")
    if single and is_unlabelled(labels):
        named = labels[:0]
    else:
        named = labels if single else split_ignored(labels)[0]
    if ((named < 0) | (named >= classes)).any():
        raise DataError(f"a label is not in 0 to {classes - 1}")
    if ((columns["height"] < 1) | (columns["width"] < 1)).any():
        raise DataError("an image has no pixels")
    if (columns["key"] == 0).sum() != max(records - 1, 0):
        raise DataError(f"there are not {records} keys")
    return columns
