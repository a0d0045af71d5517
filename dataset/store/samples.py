"""What a loader reads from: the base of LMDB shards, WSLD folders, plain image files and samples of a user's own."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dataset.store.index import Index
from dataset.store.record import Record, is_unlabelled
from utils.errors import UsageError


class Samples(ABC):
    """N samples of C classes. A subclass sets ``classes`` and ``labels`` and has `__len__` and `read`; it must pickle.

    Attributes:
        classes: C class names; the position is the label.
        labels: int [N] for single-label data, -1 for all samples where there are no labels; int8 [N, C] for multi-label
            and detection: 1 for a class that is present, -1 for one to be ignored, 0 for all others.
        sizes: int [N, 2], height and width of each image in pixels; None where each image is to be asked.
        remarks: lines on what was passed over.
    """

    classes: tuple[str, ...]
    labels: np.ndarray
    sizes: np.ndarray | None = None
    remarks: Sequence[str] = ()

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def read(self, index: int) -> Record:
        """The record at ``index``.

        Raises:
            DataError: it is damaged.
        """

    @property
    def unlabelled(self) -> bool:
        """Whether no sample has a label."""
        return is_unlabelled(self.labels)

    def mapped(self, index: int) -> Record:
        """As `read`; the image may be a memoryview, valid until `close`."""
        return self.read(index)

    def describe(self, index: int) -> str:
        """How to find a sample again."""
        return f"sample {index}"

    def check(self, index: int) -> None:
        """Check that the file that a sample lies in is whole.

        Raises:
            DataError: it is not.
        """

    def keys(self) -> list[str]:
        """Every record's key, in order; empty where only the records know them."""
        return []

    def digest(self) -> str:
        """SHA-256 of labels and content, wherever it lies: other samples have another."""
        return hashlib.sha256(self.labels.astype(np.int64).tobytes() + self._content()).hexdigest()

    def _content(self) -> bytes:
        """What distinguishes these samples from others of the same labels."""
        return "\n".join(self.keys()).encode(errors="surrogateescape")

    @property
    def packed(self) -> tuple[Path, Index] | None:
        """Of a packed split, its folder and its index."""
        return None

    @property
    def shards(self) -> list[int]:
        """How many records each shard holds, in order."""
        return [len(self)]

    def prepare(self, open_shards: int | None) -> None:
        """Get ready for training that reads so many shards at a time, or all of them.

        Raises:
            UsageError: there is no space for them.
        """

    def reading(self, groups: list[list[int]], batches: Iterator[np.ndarray]) -> Generator[np.ndarray]:
        """The ``batches`` of samples as they are, from one group of shards after the other.

        Args:
            groups: numbers of the shards that are read at a time.
            batches: sample numbers, int64 [B] each, of repeated samples plus multiples of N.
        """
        yield from batches

    def close(self) -> None:
        """Release what this process has opened, so that a forked one may open it."""


def as_samples(given: object) -> Samples:
    """``given`` itself, or of another class what its `classes`, `labels`, `__len__` and `read` are.

    Raises:
        UsageError: it lacks one of them.
    """
    if isinstance(given, Samples):
        return given
    if lacking := [name for name in ("classes", "labels", "__len__", "read") if not hasattr(given, name)]:
        raise UsageError(f"{type(given).__name__} has no {', '.join(lacking)}: derive it from dataset.Samples")
    return _Foreign(given)


class _Foreign(Samples):
    def __init__(self, given: Any) -> None:
        self._given, self.classes, self.labels = given, given.classes, given.labels

    def __len__(self) -> int:
        return len(self._given)

    def read(self, index: int) -> Record:
        return self._given.read(index)
