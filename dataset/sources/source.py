"""What a packer reads: the images of one split, of whatever data set. A new data set is a file beside this one."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from dataset.store.record import Record, Target
from utils.text import printable

_Source = TypeVar("_Source", bound="Source")


@dataclass(frozen=True)
class Source(ABC):
    """N images of one split, of C classes. Every packing process is sent its part, so a source must pickle.

    Attributes:
        split: train, val, ...
        target: kind of the targets, one of `dataset.store.index.TARGETS`.
        classes: C names; the position is the label.
        keys: N names that the records are to have.
        targets: N; boxes in pixels of the image as it is in its file.
    """

    split: str
    target: str
    classes: tuple[str, ...]
    keys: Sequence[str]
    targets: Sequence[Target]

    def __len__(self) -> int:
        return len(self.keys)

    @abstractmethod
    def sizes(self) -> list[int]:
        """Bytes of each image; images are dealt to shards by them.

        Raises:
            UsageError: images are missing.
        """

    @abstractmethod
    def image(self, number: int) -> bytes:
        """The image file at ``number``, of any kind that Pillow reads.

        Raises:
            BadImage: it is no image that can be packed.
            OSError: it cannot be read.
        """

    def record(self, number: int) -> Record:
        """The record at ``number``, its image as in its file.

        Raises:
            BadImage, OSError: as `image`.
        """
        return Record(self.keys[number], self.image(number), self.targets[number])

    def name(self, number: int) -> str:
        """What messages call an image."""
        return printable(f"{self.split}/{self.keys[number]}")

    def take(self: _Source, numbers: Iterable[int]) -> _Source:
        """These images, in this order. A subclass with more columns takes theirs too."""
        numbers = list(numbers)
        keys, targets = [self.keys[number] for number in numbers], [self.targets[number] for number in numbers]
        return replace(self, keys=keys, targets=targets)

    def images(self) -> str:
        """What tells the images from others of the same keys; empty where they are files that may be mended."""
        return ""

    def digest(self) -> str:
        """SHA-256 of keys and targets in their order, in hexadecimal."""
        lines = (f"{key} {target}\n" for key, target in zip(self.keys, self.targets, strict=True))
        return hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()
