"""Plain image folders read in place of LMDB: slower to read, nothing to pack."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from dataset.jpeg.header import BadImage
from dataset.jpeg.images import read_image
from dataset.sources.imagenet import find_classes, find_images, find_unlabelled, is_flat
from dataset.store.names import PackedNames
from dataset.store.record import Record
from dataset.store.samples import Samples
from utils.errors import DataError


class ImageFolder(Samples):
    """`<split>/<class>/<image>` below a dataset's root; the label is the position of the class in sorted `train`.

    A `train` that holds images and no folders has no labels; nor has another split then that is so.

    Attributes:
        classes: class names, by label; where `train` has none, those of the split, or none.
        labels: int64 [N].
        remarks: what was passed over, a line for each kind.

    Raises:
        UsageError: as `find_classes` and `find_images`.
    """

    def __init__(self, root: Path, split: str) -> None:
        self._folder, self.classes = root / split, ()
        unlabelled = (root / "train").is_dir() and is_flat(root / "train")
        if unlabelled and is_flat(self._folder):
            entries, remarks = find_unlabelled(self._folder)
        else:
            self.classes = find_classes(root, split=split if unlabelled else "train")
            entries, remarks = find_images(self._folder, self.classes)
        self.remarks = [f"{self._folder}: {remark}" for remark in remarks]
        self._paths = PackedNames(os.fsencode(entry.path) for entry in entries)
        self.labels = np.array([entry.label for entry in entries])

    def __len__(self) -> int:
        return len(self._paths)

    def keys(self) -> list[str]:
        """Every image's path below the split, in order."""
        return [os.fsdecode(path) for path in self._paths]

    def read(self, index: int) -> Record:
        """The record at ``index``."""
        path = os.fsdecode(self._paths[index])
        try:
            return Record(path, read_image(self._folder / path), int(self.labels[index]))
        except OSError as error:
            raise DataError(f"{self._folder / path}: {error.strerror}") from None
        except BadImage as error:
            raise DataError(f"{self._folder / path}: {error}") from None
