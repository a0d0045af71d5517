"""Samples with some of their classes, or with all in another order."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from dataset.store.index import Index
from dataset.store.record import Boxes, Record, Target
from dataset.store.samples import Samples
from utils.errors import UsageError
from utils.text import first_few, in_utf8, spelled


class Chosen(Samples):
    """All samples of a split, of whose classes some are learned; an image that shows none of them stays.

    Args:
        samples: of multi-label data, or of detection.
        classes: names of theirs, in the order that the labels are to have.

    Raises:
        UsageError: there is no such class, one is named twice, or images have one label each.
    """

    def __init__(self, samples: Samples, classes: Sequence[str]) -> None:
        places = {in_utf8(name): label for label, name in enumerate(samples.classes)}
        if unknown := [name for name in classes if in_utf8(name) not in places]:
            known = first_few([*map(spelled, samples.classes)]) or "none"
            raise UsageError(f"data.classes: the data has no {first_few([*map(spelled, unknown)])}; it has {known}")
        if len(set(classes)) < len(classes):
            twice = next(name for name in classes if list(classes).count(name) > 1)
            raise UsageError(f"data.classes names {spelled(twice)} twice")
        if samples.labels.ndim != 2:
            raise UsageError("data.classes is for data with several classes an image; these have one label each")
        labels = [places[in_utf8(name)] for name in classes]
        self._samples = samples
        self._label_of = {label: number for number, label in enumerate(labels)}
        self.classes = tuple(samples.classes[label] for label in labels)
        self.labels = samples.labels[:, labels]
        self.sizes, self.remarks = samples.sizes, samples.remarks

    def __len__(self) -> int:
        return len(self._samples)

    def read(self, index: int) -> Record:
        """The record at ``index``, with labels among the chosen classes."""
        return self._relabelled(self._samples.read(index))

    def mapped(self, index: int) -> Record:
        """As `read`; the image may be a memoryview."""
        return self._relabelled(self._samples.mapped(index))

    def _relabelled(self, record: Record) -> Record:
        return replace(record, target=relabelled(record.target, self._label_of))

    def describe(self, index: int) -> str:
        """How to find a sample again."""
        return self._samples.describe(index)

    def check(self, index: int) -> None:
        """As the samples do."""
        self._samples.check(index)

    def keys(self) -> list[str]:
        """Every record's key, in order."""
        return self._samples.keys()

    def _content(self) -> bytes:
        return self._samples._content()

    @property
    def packed(self) -> tuple[Path, Index] | None:
        """Of a packed split, its folder and its index."""
        return self._samples.packed

    @property
    def shards(self) -> list[int]:
        """How many records each shard holds, in order."""
        return self._samples.shards

    def prepare(self, open_shards: int | None) -> None:
        """As the samples do."""
        self._samples.prepare(open_shards)

    def reading(self, groups: list[list[int]], batches: Iterator[np.ndarray]) -> Generator[np.ndarray]:
        """As the samples do."""
        return self._samples.reading(groups, batches)

    def close(self) -> None:
        """Release what this process has opened."""
        self._samples.close()


def relabelled(target: Target, label_of: dict[int, int]) -> Target:
    """A target of several classes with other labels; ``label_of`` has them by those of before, of what stays."""
    if isinstance(target, Boxes):
        kept = [number for number, label in enumerate(target.labels) if label in label_of]
        columns = {name: tuple(column[number] for number in kept) for name, column in target.columns().items()}
        return Boxes(**{**columns, "labels": tuple(label_of[label] for label in columns["labels"])})
    assert not isinstance(target, int)
    present = sorted(label_of[label] for label in target if label in label_of)
    ignored = sorted(label_of[-1 - label] for label in target if label < 0 and -1 - label in label_of)
    return (*present, *(-1 - label for label in ignored))
