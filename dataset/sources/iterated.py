"""Records of a function of the user's, in the order in which it yields them, as a source.

A function is asked for its records one after the other; packing reads them in several processes, in any order, and
again after a kill. So they are kept in a folder beside the shards until these are written::

    train/records/records.bin    msgpack: what yields them, the SHA-256 of its files, then of each record
                                 [key, target, path or None, bytes, CRC-32 of an image that has no path]; written last
    train/records/images.bin     images that are no files of their own, one behind the other
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from numbers import Integral
from pathlib import Path
from typing import Any, BinaryIO

import msgpack
import numpy as np
from isal.isal_zlib import crc32
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
from dataset.store.plan import PLAN
from dataset.store.record import UNLABELLED, Boxes, Record, Target
from utils.console import progress
from utils.errors import UsageError, in_one_line
from utils.files import lock, make_folder, write_atomically
from utils.text import first_few, is_encodable, spelled

_FOLDER, _RECORDS, _IMAGES = "records", "records.bin", "images.bin"
_KINDS = {  # of targets, as they are kept: in words, and in an index
    type(None): ("no label", "single"),
    int: ("a label", "single"),
    str: ("the name of a label", "single"),
    list: ("a list of labels", "multi"),
    dict: ("boxes", "detection"),
}
_Row = list[Any]  # key, target, path or None, bytes, CRC-32
_FIELDS = 5


@dataclass(frozen=True)
class Iterated(Source):
    """Images that a function has yielded.

    Attributes:
        places: N, where each is.
        checksums: N, the CRC-32 of each that is no file of its own.
    """

    places: list[Place]
    checksums: list[int]

    def sizes(self) -> list[int]:
        """Bytes of each image."""
        return [place.size for place in self.places]

    def image(self, number: int) -> bytes:
        """The file, or what was yielded.

        Raises:
            BadImage, OSError: as `read_image`; or another command asks the function meanwhile.
        """
        place = self.places[number]
        if not place.member:
            return read_image(place.path)
        data = place.read()
        if crc32(data) != self.checksums[number]:
            raise BadImage(f"{place.path} has changed since it was written")
        return data

    def images(self) -> str:
        """SHA-256 of all paths, and of the checksums of images that have none."""
        lines = (
            f"{checksum if place.member else place.path}\n" for place, checksum in zip(self.places, self.checksums)
        )
        return hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()

    def take(self, numbers: Iterable[int]) -> Iterated:
        """These images, in this order."""
        numbers = list(numbers)
        places, checksums = [self.places[number] for number in numbers], [self.checksums[number] for number in numbers]
        return replace(super().take(numbers), places=places, checksums=checksums)


def find_yielded(given: Yielding, split: str, folder: Path, beside: Path) -> Iterated:
    """What ``given`` yields, kept in ``folder`` until all is packed, for other parts and after a kill.

    It is asked again where its files have changed since, and for a split that is finished, which is verified by it.

    Args:
        given: the function.
        split: train, val, ...
        folder: of the packed split.
        beside: the packed training split, whose classes another split has where the function names none.

    Raises:
        UsageError: the function raises an error, or yields what cannot be packed; with the number of the record and
            the line. Or the folder has records of another function.
        DataError: the disk is full.
    """
    kept = folder / _FOLDER
    make_folder(kept, "--output_path")
    with lock(kept / ".lock", wait=True):  # other parts wait for the one that came first
        before = _read(kept, given, folder)
        rows = before or _ask(given, kept)
        classes = given.classes or (_classes_in(beside) if folder != beside else ())
        kind, classes, targets = _targets(rows, classes, given, split)
        if not before:  # once all of them are known to be fit for packing
            entries = [given.identity, given.sources, *rows]
            write_atomically(kept / _RECORDS, lambda file: file.writelines(map(_packed, entries)))
    places, checksums, end = list[Place](), list[int](), 0
    for key, _, path, size, checksum in rows:
        end += 0 if path else size
        places.append(Place(Path(path), size) if path else Place(kept / _IMAGES, size, key, end - size))
        checksums.append(checksum)
    return Iterated(split, kind, classes, [row[0] for row in rows], targets, places, checksums)


def forget_images(folder: Path) -> None:
    """Delete the images that were kept for a split that is packed now; its records stay, which say whose they are."""
    (folder / _FOLDER / _IMAGES).unlink(missing_ok=True)


def forget_records(folder: Path) -> None:
    """Let the next command ask for all records again."""
    (folder / _FOLDER / _RECORDS).unlink(missing_ok=True)


def _read(kept: Path, given: Yielding, folder: Path) -> list[_Row]:
    """The records that an earlier command has kept; none where they are to be asked for."""
    path, entries = kept / _RECORDS, list[Any]()
    if not path.exists():
        return []
    with path.open("rb") as file, suppress(msgpack.UnpackException, ValueError):
        entries = [*msgpack.Unpacker(file, unicode_errors="surrogateescape")]
    if len(entries) < 2 or not isinstance(entries[0], list):  # damaged
        return []
    (identity, sources), rows = entries[:2], entries[2:]
    if identity != given.identity and (folder / PLAN).exists():
        other = " ".join(identity)
        raise UsageError(f"{kept} has the records of {other}: repeat that command, or delete {folder}")
    is_as_before = (identity, sources) == (given.identity, given.sources) and all(len(row) == _FIELDS for row in rows)
    return rows if is_as_before and _is_unfinished(folder) and not _lacks_images(kept, rows) else []


def _lacks_images(kept: Path, rows: list[_Row]) -> bool:
    """Whether images that were kept are there no more."""
    path = kept / _IMAGES
    size = sum(size for _, _, file, size, _ in rows if file is None)
    return (path.stat().st_size if path.exists() else 0) < size


def _is_unfinished(folder: Path) -> bool:
    """Whether shards of the split are still to be written."""
    return not (folder / INDEX).exists() or not all(
        (folder / shard.file).exists() for shard in Index.read(folder).shards
    )


def _ask(given: Yielding, kept: Path) -> list[_Row]:
    """All records, and a file of the images that are none of their own."""
    rows = list[_Row]()

    def write(images: BinaryIO) -> None:
        for record in progress(iterable=given.records(), desc="reading records", unit="img"):
            target = _plain_target(record.target, given)
            if rows and type(target) is not type(rows[0][1]):
                one, other = (_KINDS[type(each)][0] for each in (target, rows[0][1]))
                raise given.wrong(f"it has {one}, and those before it have {other}: all must be of one kind")
            path, data = _found(record, given)
            images.write(data)
            size = len(data) if path is None else path.stat().st_size
            rows.append([_checked_key(record, given), target, path and os.fspath(path), size, crc32(data)])

    write_atomically(kept / _IMAGES, write)
    if not rows:
        raise UsageError(f"{given.identity[0]} yields no records")
    _check_unique(rows, given)
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
    except Exception as error:  # damaged files make Pillow's plugins raise any
        raise given.wrong(f"its image cannot be read: {in_one_line(error)}") from None
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
    if not isinstance(record.key, str) or not record.key or "\0" in record.key or not is_encodable(record.key):
        raise given.wrong(f"its key is {record.key!r:.80}: expected a text, of which each record has another")
    return str.__str__(record.key)


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
        given_labels = [_plain_label(one, given) for one in target]
        labels = sorted(set(given_labels), key=lambda one: (isinstance(one, str), one))
        if len(labels) < len(given_labels) and {*labels} <= {0, 1}:
            again = next(label for label in labels if given_labels.count(label) > 1)
            raise given.wrong(
                f"its target has {again} twice: a list holds the numbers of the classes that an image has, each once, "
                "and not a zero or a one for every class"
            )
        if UNLABELLED not in labels:
            return labels
    label = _plain_label(target, given)
    return None if label == UNLABELLED else label


def _plain_label(label: Any, given: Yielding) -> int | str:
    if isinstance(label, str) and is_encodable(label):
        return str.__str__(label)  # of NumPy's texts and of enumerations the plain text
    if isinstance(label, Integral) and not isinstance(label, bool) and UNLABELLED <= int(label) < MOST_CLASSES:
        return int(label)
    raise given.wrong(
        f"its target has {label!r:.80}: expected a label from 0, a name, a list of these, dataset.Boxes, or None"
    )


def _plain_boxes(target: Boxes, given: Yielding) -> dict[str, list]:
    columns = {name: _plain_column(target, name, given) for name in ("boxes", "labels", "difficult", "crowd", "areas")}
    boxes = columns["boxes"]
    if {len(column) for name, column in columns.items() if column or name != "areas"} != {len(boxes)}:
        raise given.wrong("its boxes, labels, difficult, crowd and areas are not equally many")
    for box in boxes:
        if len(box) != 4 or not all(map(math.isfinite, box)) or box[0] >= box[2] or box[1] >= box[3]:
            raise given.wrong(f"a box is {box}: expected x1, y1, x2, y2 in pixels, x1 < x2 and y1 < y2")
    if UNLABELLED in columns["labels"]:
        raise given.wrong("a box has no label")
    for area in columns["areas"]:
        if not 0 <= area < math.inf:
            raise given.wrong(f"an area is {area}: expected a number of pixels, from 0")
    return columns


def _plain_column(target: Boxes, name: str, given: Yielding) -> list:
    column = getattr(target, name)
    try:
        if name == "labels":
            return [_plain_label(one, given) for one in column]
        if name == "boxes":
            return [[float(corner) for corner in box] for box in column]
        return [float(one) if name == "areas" else bool((0, 1).index(one)) for one in column]
    except UsageError:
        raise
    except (TypeError, ValueError):
        expected = {
            "boxes": "x1, y1, x2, y2 of each box",
            "labels": "a label of each box",
            "areas": "pixels of each box",
        }
        raise given.wrong(
            f"{name} of its Boxes is {column!r:.80}: expected {expected.get(name, 'False or True for each box')}"
        ) from None


def _targets(
    rows: list[_Row], classes: tuple[str, ...], given: Yielding, split: str
) -> tuple[str, tuple[str, ...], list[Target]]:
    """The kind of the targets, names of the classes, those of ``classes`` where there are some, and the targets."""
    named = {label for _, target, *_ in rows for label in _labels_of(target)}
    names = sorted(label for label in named if isinstance(label, str))
    if 0 < len(names) < len(named):
        shown = first_few([*map(str, named)])
        raise UsageError(f"{given.identity[0]}: some labels are numbers, and some names: {shown}")
    if not classes and names:
        classes = tuple(names)
    elif not classes:
        numbers = {int(label) for label in named}
        classes = tuple(map(str, range(max(numbers, default=-1) + 1)))
        if numbers and (unused := [name for name in classes if int(name) not in numbers]):
            print(f"{split}: no record has label {first_few(unused)}: there are {len(classes)} classes, counted from 0")
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
