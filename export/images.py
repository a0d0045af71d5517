"""What a student says of image files, in the pixels of its validation. B images of a batch, N of all, D detections."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from dataset.feed.stored import in_stored_pixels
from dataset.feed.targets import Arrays, Fields, Window
from dataset.jpeg.damage import find_damage
from dataset.jpeg.header import BadImage
from dataset.jpeg.images import image_size, read_image
from dataset.loader import EvalLoader
from dataset.sources.walk import look_into
from dataset.store.record import Record
from dataset.store.samples import Samples
from export.student import Student
from models.outputs import Scene
from utils.console import progress
from utils.errors import DataError, UsageError
from utils.text import printable

_SUFFIXES = (
    ".jpg",
    ".jpeg",
    ".png",
    ".bmp",
    ".webp",
    ".gif",
    ".tif",
    ".tiff",
    ".ppm",
    ".pgm",
    ".jp2",
    ".jfif",
    ".avif",
)
_FEW = 64  # images for which no decoding process is started


class Said(NamedTuple):
    """What a student says of an image: logits, or detections in pixels of the file, best first."""

    path: Path
    logits: np.ndarray  # float32 [K]; empty of a detector
    boxes: np.ndarray  # float64 [D, 4], x1, y1, x2, y2
    classes: np.ndarray  # int64 [D]
    scores: np.ndarray  # float32 [D]


class Damaged(NamedTuple):
    """An image that cannot be read, and why."""

    path: Path
    reason: str


def images_in(places: Sequence[Path]) -> tuple[list[Path], list[Damaged]]:
    """Files as they are, and the images in folders and below them, by name, each once; and those that are missing.

    Raises:
        UsageError: all are missing, a folder cannot be read, or there is no image in one.
    """
    found: list[Path] = []
    missing: list[Damaged] = []
    for place in places:
        if place.is_dir():
            broken = list[str]()
            below = [name for name in sorted(look_into(place, broken).files) if name.lower().endswith(_SUFFIXES)]
            if not below and not broken:
                raise UsageError(f"{printable(str(place))} holds no image: no file ends in {', '.join(_SUFFIXES)}")
            found += [place / name for name in below]
            missing += [Damaged(place / name, "a link that leads nowhere") for name in broken]
        elif place.exists():
            found.append(place)
        else:
            missing.append(Damaged(place, "no such file or folder"))
    if not found:
        raise UsageError(f"{printable(str(missing[0].path))}: {missing[0].reason}")
    return [*dict.fromkeys(found)], [*dict.fromkeys(missing)]


def look_at(student: Student, paths: Sequence[Path], device: torch.device) -> Iterator[Said | Damaged]:
    """What ``student`` says of the image files at ``paths``, in order; of a detector those of one canvas together.

    Damaged ones come before or after all others.

    Raises:
        DataError: decoding processes die.
    """
    detects, sizes = student.settings.made_task().detects, None
    if detects:
        sized = [(path, _size_of(path)) for path in paths]
        yield from (Damaged(path, size) for path, size in sized if isinstance(size, str))
        sound = [(path, size) for path, size in sized if not isinstance(size, str)]
        paths, sizes = [path for path, _ in sound], np.array([size for _, size in sound], np.int64)
    if not paths:
        return
    data = student.settings.data
    workers = 0 if len(paths) <= _FEW else min(data.num_workers, os.cpu_count() or 1)
    files = _Files(paths, student.classes, sizes)
    loader = EvalLoader(files, replace(data, on_fault="skip", num_workers=workers), 0, 1, device, targets=_Windows())
    network = student.network.to(device)
    seen = np.zeros(len(paths), bool)
    bar = progress(total=len(paths), desc="predicting", unit="image", disable=len(paths) == 1)
    with closing(loader), bar, warnings.catch_warnings(record=True) as remarks, torch.no_grad():
        warnings.simplefilter("always")
        for batch in loader:
            scene = Scene(batch.sizes, batch.targets, batch.index)
            index = batch.index.cpu().numpy()
            outputs = network.predict(batch.images["weak"], scene)
            if detects:
                yield from _found(outputs.context, batch.targets["windows"], batch.sizes, [paths[n] for n in index])
            else:
                logits = outputs.logits.float().cpu().numpy()
                nothing = np.zeros((0, 4)), np.zeros(0, np.int64), np.zeros(0, np.float32)
                yield from (Said(paths[n], row.copy(), *nothing) for n, row in zip(index, logits))
            seen[index] = True
            bar.update(len(index))
    yield from (Damaged(paths[n], _reason(paths[n], remarks)) for n in np.flatnonzero(~seen).tolist())


def _found(
    context: dict[str, torch.Tensor], windows: torch.Tensor, sizes: torch.Tensor, paths: list[Path]
) -> Iterator[Said]:
    found = {name: context[name].cpu().numpy() for name in ("boxes", "scores", "classes")}
    boxes = in_stored_pixels(found["boxes"], windows.cpu().numpy(), sizes.cpu().numpy())
    for row, path in enumerate(paths):
        there = found["classes"][row] >= 0
        yield Said(
            path, np.zeros(0, np.float32), boxes[row, there], found["classes"][row, there], found["scores"][row, there]
        )


def _size_of(path: Path) -> tuple[int, int] | str:
    """Height and width of an image, or why there are none."""
    try:
        return image_size(read_image(path))
    except (OSError, BadImage) as error:
        return _text(error)


def _reason(path: Path, remarks: Sequence[warnings.WarningMessage]) -> str:
    """What was remarked on a file that was skipped."""
    for remark in remarks:
        if named := re.search(rf"(?:^|\s){re.escape(str(path))}: (.*)", str(remark.message), re.DOTALL):
            return named[1].partition("; pack the split again")[0]
    return "it cannot be read"


def _text(error: Exception) -> str:
    return (isinstance(error, OSError) and error.strerror) or str(error)


class _Files(Samples):
    """Image files without targets, read as those of class folders are."""

    def __init__(self, paths: Sequence[Path], classes: tuple[str, ...], sizes: np.ndarray | None) -> None:
        self._paths, self.classes, self.sizes = paths, classes, sizes
        self.labels = np.zeros(len(paths), np.int64)

    def __len__(self) -> int:
        return len(self._paths)

    def read(self, index: int) -> Record:
        """The file at ``index``."""
        path = self._paths[index]
        try:
            data = read_image(path)
            find_damage(data)
        except (OSError, BadImage) as error:
            raise DataError(f"{path}: {_text(error)}") from None
        return Record(str(path), data, 0)

    def describe(self, index: int) -> str:
        """Its path."""
        return f"{self._paths[index]}: "


class _Windows:
    """What of an image is shown: `windows` float64 [B, 4]."""

    def layout(self, rows: int) -> Fields:
        """One array."""
        return {"windows": (np.float64, (rows, 4))}

    def put(self, target: Any, window: Window, mirror: bool, out: Arrays, row: int) -> None:
        """The window."""
        out["windows"][row] = window
