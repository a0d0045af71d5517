"""Records of a function of the user's, in the order in which it yields them, as a source.

A function is asked for its records once, one after the other; packing reads them in several processes, in any order,
and again after a kill. So they are kept in a folder beside the shards until these are written::

    train/records/records.bin    msgpack: what yields them, then [key, target, path or None, bytes] of each, then None
    train/records/images.bin     images that are no files of their own, one behind the other
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from numbers import Integral
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
from PIL import Image

from dataset.jpeg.header import BadImage
from dataset.jpeg.images import read_image
from dataset.jpeg.raw import encode_raw
from dataset.jpeg.rgb import as_rgb
from dataset.sources.functions import Yielding
from dataset.sources.imagenet import MOST_CLASSES
from dataset.sources.source import Source
from dataset.sources.tree import Place
from dataset.store.index import INDEX, Index
from dataset.store.record import UNLABELLED, Boxes, Record, Target
from utils.console import progress
from utils.errors import UsageError
from utils.files import lock, make_folder
from utils.text import first_few, spelled

_FOLDER, _RECORDS, _IMAGES = "records", "records.bin", "images.bin"
_AT_ONCE = 256  # records that are written together
_KINDS = {  # of targets, as they are kept: in words, and in an index
    type(None): ("no label", "single"),
    int: ("a label", "single"),
    str: ("the name of a label", "single"),
    list: ("a list of labels", "multi"),
    dict: ("boxes", "detection"),
}
_Row = list[Any]  # key, target, path or None, bytes


@dataclass(frozen=True)
class Iterated(Source):
    """Images that a function has yielded.

    Attributes:
        places: N, where each is.
    """

    places: list[Place]

    def sizes(self) -> list[int]:
        """Bytes of each image."""
        return [place.size for place in self.places]

    def image(self, number: int) -> bytes:
        """The file, or what was yielded.

        Raises:
            BadImage, OSError: as `read_image`.
        """
        place = self.places[number]
        return place.read() if place.member else read_image(place.path)

    def take(self, numbers: Iterable[int]) -> Iterated:
        """These images, in this order."""
        numbers = list(numbers)
        return replace(super().take(numbers), places=[self.places[number] for number in numbers])


def find_yielded(given: Yielding, split: str, folder: Path, beside: Path) -> Iterated:
    """What ``given`` yields, kept in ``folder``; a pass that was stopped goes on where it was.

    Args:
        given: the function.
        split: train, val, ...
        folder: of the packed split.
        beside: the packed training split, whose classes another split has where the function names none.

    Raises:
        UsageError: the function raises an error, or yields what cannot be packed; with the number of the record and
            the line. Or the folder has records of another function.
    """
    kept = folder / _FOLDER
    make_folder(kept, "--output_path")
    with lock(kept / ".lock", wait=True):  # other parts wait for the one that came first
        rows, done = _read(kept, given)
        if _lacks_images(kept, rows) and (not done or _is_unfinished(folder)):
            rows, done = [], False
        if not done:
            rows = _keep(given, kept, rows)
    classes = given.classes or (_classes_in(beside) if folder != beside else ())
    kind, classes, targets = _targets(rows, classes, given)
    places, end = list[Place](), 0
    for key, _, path, size in rows:
        end += 0 if path else size
        places.append(Place(Path(path), size) if path else Place(kept / _IMAGES, size, key, end - size))
    return Iterated(split, kind, classes, [row[0] for row in rows], targets, places)


def forget_images(folder: Path) -> None:
    """Delete the images that were kept for a split that is packed now; its records stay, by which it is verified."""
    (folder / _FOLDER / _IMAGES).unlink(missing_ok=True)


def _read(kept: Path, given: Yielding) -> tuple[list[_Row], bool]:
    """The records that an earlier run has kept, and whether they are all; what it was killed in is cut off."""
    path, entries, length = kept / _RECORDS, list[Any](), 0
    if not path.exists():
        return [], False
    with path.open("rb") as file, suppress(msgpack.UnpackException, ValueError):
        unpacker = msgpack.Unpacker(file, unicode_errors="surrogateescape")
        for entry in unpacker:
            entries.append(entry)
            length = unpacker.tell()
    os.truncate(path, length)
    if entries and entries[0] != given.identity:
        other = " ".join(entries[0])
        raise UsageError(f"{kept} has the records of {other}: repeat that command, or delete {kept.parent}")
    done = bool(entries) and entries[-1] is None
    return entries[1 : -1 if done else None], done


def _lacks_images(kept: Path, rows: list[_Row]) -> bool:
    """Whether images that were kept are there no more."""
    path = kept / _IMAGES
    return (path.stat().st_size if path.exists() else 0) < _bytes_of(rows)


def _bytes_of(rows: list[_Row]) -> int:
    """Of the images that are kept."""
    return sum(size for _, _, path, size in rows if path is None)


def _is_unfinished(folder: Path) -> bool:
    """Whether shards of the split are still to be written."""
    return not (folder / INDEX).exists() or not all(
        (folder / shard.file).exists() for shard in Index.read(folder).shards
    )


def _keep(given: Yielding, kept: Path, before: list[_Row]) -> list[_Row]:
    """All records; those of a run that was stopped are passed over."""
    rows = list[_Row]()
    again = f"records must come in the same order each time; or delete {kept.parent} and start over"
    with (kept / _IMAGES).open("ab") as images, (kept / _RECORDS).open("ab") as records:
        images.truncate(_bytes_of(before))
        if not before:
            records.truncate(0)
            records.write(_packed(given.identity))
        pending = list[bytes]()
        for number, record in enumerate(progress(iterable=given.records(), desc="reading records", unit="img")):
            if number < len(before):
                if record.key != before[number][0]:
                    was = spelled(before[number][0])
                    raise given.wrong(f"its key is {spelled(str(record.key))}, and was {was} before: {again}")
                rows.append(before[number])
                continue
            target = _plain_target(record.target, given)
            if rows and type(target) is not type(rows[0][1]):
                one, other = (_KINDS[type(each)][0] for each in (target, rows[0][1]))
                raise given.wrong(f"it has {one}, and those before it have {other}: all must be of one kind")
            path, data = _found(record, given)
            size = len(data) if path is None else path.stat().st_size
            images.write(data)
            rows.append([_checked_key(record, given), target, path and os.fspath(path), size])
            pending.append(_packed(rows[-1]))
            if len(pending) == _AT_ONCE:
                images.flush()  # first, so that no record is without its image
                records.write(b"".join(pending))
                records.flush()
                pending.clear()
        if len(rows) < len(before):
            raise UsageError(f"{given.identity[0]}: {len(rows):,} records, and {len(before):,} before: {again}")
        if not rows:
            raise UsageError(f"{given.identity[0]} yields no records")
        _check_unique(rows, given)
        images.flush()
        records.write(b"".join([*pending, _packed(None)]))
    return rows


def _packed(entry: object) -> bytes:
    return msgpack.packb(entry, unicode_errors="surrogateescape")


def _found(record: Record, given: Yielding) -> tuple[Path | None, bytes]:
    """The file that an image is, or its bytes."""
    image: Any = record.image
    if isinstance(image, str | os.PathLike):
        path = Path(image).absolute()
        if not path.is_file():
            raise given.wrong(f"no file {spelled(str(path))}")
        return path, b""
    if isinstance(image, bytes | bytearray | memoryview):
        return None, bytes(image)
    try:
        if isinstance(image, Image.Image):
            image = as_rgb(image)
    except BadImage as error:
        raise given.wrong(str(error)) from None
    if isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.size:
        if image.ndim == 2 or image.shape[2:] == (1,):
            image = np.repeat(image.reshape(*image.shape[:2], 1), 3, axis=2)
        if image.shape[2:] == (3,):
            return None, encode_raw(image)
    what = f"{image.dtype} {list(image.shape)}" if isinstance(image, np.ndarray) else f"a {type(image).__name__}"
    raise given.wrong(
        f"its image is {what}: expected the bytes of a file, its path, a PIL image, or an array uint8 [H, W, 3] or "
        "[H, W]"
    )


def _checked_key(record: Record, given: Yielding) -> str:
    if not isinstance(record.key, str) or not record.key or "\0" in record.key:
        raise given.wrong(f"its key is {record.key!r:.80}: expected a text, of which each record has another")
    return record.key


def _check_unique(rows: list[_Row], given: Yielding) -> None:
    first: dict[str, int] = {}
    for number, (key, *_) in enumerate(rows):
        if (other := first.setdefault(key, number)) != number:
            raise given.wrong(f"its key {spelled(key)} is that of record {other}: give each record another", number)


def _plain_target(target: Any, given: Yielding) -> object:
    """As it is kept."""
    if target is None:
        return None
    if isinstance(target, Boxes):
        return _plain_boxes(target, given)
    if isinstance(target, np.ndarray) and target.ndim == 1:
        target = target.tolist()
    if isinstance(target, list | tuple | set | frozenset):
        labels = sorted({_plain_label(one, given) for one in target}, key=lambda one: (isinstance(one, str), one))
        if UNLABELLED not in labels:
            return labels
    label = _plain_label(target, given)
    return None if label == UNLABELLED else label


def _plain_label(label: Any, given: Yielding) -> int | str:
    if isinstance(label, str):
        return label
    if isinstance(label, Integral) and not isinstance(label, bool) and UNLABELLED <= int(label) < MOST_CLASSES:
        return int(label)
    raise given.wrong(
        f"its target has {label!r:.80}: expected a label from 0, a name, a list of these, dataset.Boxes, or None"
    )


def _plain_boxes(target: Boxes, given: Yielding) -> dict[str, list]:
    boxes = [[float(corner) for corner in box] for box in target.boxes]
    columns: dict[str, list] = {"boxes": boxes, "labels": [_plain_label(one, given) for one in target.labels]}
    for name in ("difficult", "crowd"):
        columns[name] = [bool(one) for one in getattr(target, name)]
    columns["areas"] = [float(one) for one in target.areas]
    if {len(column) for name, column in columns.items() if column or name != "areas"} != {len(boxes)}:
        raise given.wrong("its boxes, labels, difficult, crowd and areas are not equally many")
    for box in boxes:
        if len(box) != 4 or not all(map(math.isfinite, box)) or box[0] >= box[2] or box[1] >= box[3]:
            raise given.wrong(f"a box is {box}: expected x1, y1, x2, y2 in pixels, x1 < x2 and y1 < y2")
    if UNLABELLED in columns["labels"]:
        raise given.wrong("a box has no label")
    return columns


def _targets(rows: list[_Row], classes: tuple[str, ...], given: Yielding) -> tuple[str, tuple[str, ...], list[Target]]:
    """The kind of the targets, names of the classes, those of ``classes`` where there are some, and the targets."""
    named = {label for _, target, *_ in rows for label in _labels_of(target)}
    names = sorted(label for label in named if isinstance(label, str))
    if 0 < len(names) < len(named):
        shown = first_few([*map(str, named)])
        raise UsageError(f"{given.identity[0]}: some labels are numbers, and some names: {shown}")
    if not classes and names:
        classes = tuple(names)
    elif not classes:
        classes = tuple(map(str, range(max(map(int, named), default=-1) + 1)))
    label_of: dict[int | str, int] = {name: label for label, name in enumerate(classes)}
    label_of |= {label: label for label in range(len(classes))}
    targets = list[Target]()
    for number, (_, target, *_) in enumerate(rows):
        for label in _labels_of(target):
            if label not in label_of:
                known = first_few([*map(spelled, classes)])
                raise given.wrong(f"its label {label!r:.80} is none of the {len(classes)} classes, {known}", number)
        targets.append(_target(target, label_of))
    return _KINDS[type(rows[0][1])][1], classes, targets


def _labels_of(target: Any) -> list[int | str]:
    if target is None:
        return []
    return target["labels"] if isinstance(target, dict) else target if isinstance(target, list) else [target]


def _target(target: Any, label_of: dict[int | str, int]) -> Target:
    if target is None:
        return UNLABELLED
    labels = tuple(label_of[label] for label in _labels_of(target))
    if isinstance(target, list):
        return tuple(sorted(labels))
    if not isinstance(target, dict):
        return labels[0]
    columns = {name: tuple(target[name]) for name in ("difficult", "crowd", "areas")}
    return Boxes(boxes=tuple(tuple(box) for box in target["boxes"]), labels=labels, **columns)


def _classes_in(folder: Path) -> tuple[str, ...]:
    """The classes of a packed split, where there is one."""
    return Index.read(folder).classes if (folder / INDEX).exists() else ()
