"""Plain image folders read in place of LMDB: slower to read, nothing to pack."""

from __future__ import annotations

from pathlib import Path

from dataset.record import Record
from dataset.sources.imagenet import find_classes, find_images
from utils.errors import DataError


class ImageFolder:
    """`<split>/<class>/<image>` below a dataset's root; the label is the position of the class in sorted `train`.

    Attributes:
        classes: class names, by label.

    Raises:
        DataError: the split holds no images.
    """

    def __init__(self, root: Path, split: str) -> None:
        self.classes = find_classes(root)
        self._folder = root / split
        self._entries, _ = find_images(self._folder, self.classes)
        if not self._entries:
            raise DataError(f"{self._folder} holds no images: expected {split}/<class>/<image>")

    def __len__(self) -> int:
        return len(self._entries)

    def read(self, index: int) -> Record:
        """The record at ``index``."""
        entry = self._entries[index]
        try:
            return Record(entry.path, (self._folder / entry.path).read_bytes(), entry.label)
        except OSError as error:
            raise DataError(f"{self._folder / entry.path}: {error.strerror}") from None
