"""One sample as bytes. The only file that knows the layout.

A record is a msgpack array of four fields::

    [version, key, image, target]

    version  int   1
    key      bin   the file's path below its split folder, as the file system spells it
    image    bin   a JPEG file, restart-tiled or not (dataset/jpeg/tiles.py), or raw pixels as a binary PPM
                   (dataset/jpeg/raw.py): its own headers say which
    target   int                      single label: the class; -1 where the split has no labels
             [int, ...]               multi-label: the classes present, ascending, then -1 - class for each to be
                                      ignored, such as VOC's difficult ones
             {"boxes": [[x1, y1, x2, y2], ...], "labels": [int, ...],
              "difficult": [bool, ...], "crowd": [bool, ...],
              "areas": [float, ...]}        detection, pixels of the stored image; no areas where the boxes' are meant
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import cast

import msgpack
import numpy as np

from utils.errors import DataError

VERSION = 1
UNLABELLED = -1  # in place of a label: no sample of the split has one

_ARRAY_OF_4, _LENGTH_BYTES = 0x94, {0xC4: 1, 0xC5: 2, 0xC6: 4}  # msgpack's fixarray; its bin 8, 16 and 32


@dataclass(frozen=True)
class Boxes:
    """A detection target: N objects, corners and areas in pixels of the stored image."""

    boxes: tuple[tuple[float, float, float, float], ...]  # N x (x1, y1, x2, y2)
    labels: tuple[int, ...]  # N
    difficult: tuple[bool, ...]  # N
    crowd: tuple[bool, ...]  # N
    areas: tuple[float, ...] = ()  # N, of the objects' masks; empty where they are those of the boxes

    @property
    def object_areas(self) -> tuple[float, ...]:
        """N areas by which COCO calls objects small, medium or large: `areas`, or those of the boxes."""
        return self.areas or tuple((x2 - x1) * (y2 - y1) for x1, y1, x2, y2 in self.boxes)

    def columns(self) -> dict[str, tuple]:
        """What a record holds."""
        return {name: column for name, column in vars(self).items() if column or name not in _OPTIONAL}

    def __repr__(self) -> str:
        """The columns; a source's digest is of these, and is the same as before where there are no areas."""
        return f"Boxes({', '.join(f'{name}={column}' for name, column in self.columns().items())})"


Target = int | tuple[int, ...] | Boxes


@dataclass(frozen=True)
class Record:
    """One image with its target."""

    key: str
    image: bytes  # or a memoryview of them
    target: Target = UNLABELLED


def pack(record: Record) -> bytes:
    """The record as msgpack bytes."""
    target: object = record.target
    if isinstance(target, Boxes):
        target = target.columns()
    return msgpack.packb([VERSION, os.fsencode(record.key), record.image, target])


def unpack(data: bytes | memoryview) -> Record:
    """The record in ``data``; its image is a slice of it: a memoryview, where ``data`` is one.

    Raises:
        DataError: ``data`` is not a record of this version.
    """
    try:
        fields, version = data[0], data[1]
        key, at = _take(data, 2)
        image, at = _take(data, at)
        target = msgpack.unpackb(data[at:], use_list=False, strict_map_key=True)
    except (ValueError, TypeError, LookupError, msgpack.UnpackException, RecursionError) as error:
        raise DataError(f"not a record: {error or type(error).__name__}") from None
    if fields != _ARRAY_OF_4:
        raise DataError("not a record: an array of four fields")
    if version != VERSION:
        raise DataError(f"record version {version}, expected {VERSION}: pack the data again or update Limbeck")
    return Record(os.fsdecode(bytes(key)), cast(bytes, image), _target(target))


def _take(data: bytes | memoryview, at: int) -> tuple[bytes | memoryview, int]:
    """The binary field at ``at`` and the position behind it, without msgpack, which would copy it."""
    start = at + 1 + _LENGTH_BYTES[data[at]]
    end = start + int.from_bytes(data[at + 1 : start], "big")
    if end > len(data):
        raise ValueError("truncated")
    return data[start:end], end


def labels_of(target: Target) -> tuple[int, ...]:
    """A target of any kind as one of multi-label data: the classes present, and -1 - class for those to be ignored.

    Of boxes a class is present where one of its objects is not difficult, in a crowd or not, and else to be ignored.
    """
    if isinstance(target, Boxes):
        return multi_label(zip(target.labels, target.difficult))
    return (target,) if isinstance(target, int) else target


def classes_of(target: Target) -> tuple[list[int], list[int]]:
    """The classes present in a target of any kind, and those to be ignored."""
    labels = () if target == UNLABELLED else labels_of(target)
    return [label for label in labels if label >= 0], [-1 - label for label in labels if label < 0]


def is_unlabelled(labels: np.ndarray) -> bool:
    """Whether no sample has a label, given those of all as `Samples` has them."""
    return labels.ndim == 1 and bool((labels == UNLABELLED).all())


def multi_label(objects: Iterable[tuple[int, bool]]) -> tuple[int, ...]:
    """A multi-label target, of objects, each with its class and whether it is difficult."""
    named = {(label, difficult) for label, difficult in objects}
    present = {label for label, difficult in named if not difficult}
    return (*sorted(present), *(-1 - label for label in sorted({label for label, _ in named} - present)))


def split_ignored(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of the labels of a multi-label target, int [L], the classes, int [L], and 1 for present, -1 to be ignored."""
    return np.where(labels < 0, -1 - labels, labels), np.where(labels < 0, -1, 1).astype(np.int8)


def resized(target: Target, before: tuple[int, int], after: tuple[int, int]) -> Target:
    """The target of an image that was (height, width) ``before`` and is so ``after``: boxes and areas follow."""
    if before == after or not isinstance(target, Boxes):
        return target
    down, across = (new / old for new, old in zip(after, before))
    boxes = tuple((x1 * across, y1 * down, x2 * across, y2 * down) for x1, y1, x2, y2 in target.boxes)
    return replace(target, boxes=boxes, areas=tuple(area * down * across for area in target.areas))


def _target(value: object) -> Target:
    if _is_int(value) or (isinstance(value, tuple) and all(map(_is_int, value))):
        return value  # type: ignore[return-value]
    if isinstance(value, dict) and value.keys() | _OPTIONAL == _BOXES.keys():
        sound = all(isinstance(column, tuple) and all(map(_BOXES[name], column)) for name, column in value.items())
        if sound and len({len(column) for column in value.values()}) == 1:
            return Boxes(**value)
    raise DataError(f"not a record: a target ({type(value).__name__}) is a class, a list of classes or boxes")


def _is_int(value: object) -> bool:
    return type(value) is int


def _is_bool(value: object) -> bool:
    return type(value) is bool


def _is_box(value: object) -> bool:
    return isinstance(value, tuple) and len(value) == 4 and all(map(_is_number, value))


def _is_number(value: object) -> bool:
    return type(value) in (int, float)


_BOXES = {  # what a column holds
    "boxes": _is_box,
    "labels": _is_int,
    "difficult": _is_bool,
    "crowd": _is_bool,
    "areas": _is_number,
}
_OPTIONAL = {"areas"}  # columns that a record may lack
