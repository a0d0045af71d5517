"""CIFAR-10 and CIFAR-100 as their authors publish them, the Python pickles or the binary files; or folders of images.

N images, 32 x 32 pixels.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from dataset.jpeg.raw import encode_raw
from dataset.sources.files import ImageFiles, labelled_files
from dataset.sources.imagenet import find_classes, find_images
from dataset.sources.source import Source
from utils.errors import DataError, UsageError

_SIDE = 32
_PIXELS = 3 * _SIDE * _SIDE


@dataclass(frozen=True)
class PixelRows(Source):
    """Images of 32 x 32 pixels that lie in memory, as the authors' files hold them.

    Attributes:
        pixels: uint8 [N, 3072], a channel after the other.
    """

    pixels: np.ndarray

    def sizes(self) -> list[int]:
        """Bytes of each image."""
        return [_PIXELS] * len(self)

    def image(self, number: int) -> bytes:
        """The image as a binary PPM."""
        return encode_raw(self.pixels[number].reshape(3, _SIDE, _SIDE).transpose(1, 2, 0))

    def take(self, numbers: Iterable[int]) -> PixelRows:
        """These images, in this order."""
        numbers = list(numbers)
        return replace(super().take(numbers), pixels=self.pixels[numbers])


def find_cifar(path: Path, split: str, *, coarse: bool = False) -> Source:
    """The images of ``split`` (train or val) below ``path``.

    Args:
        path: `cifar-10-batches-py`, `cifar-10-batches-bin`, `cifar-100-python`, `cifar-100-binary` or the folder that
            holds one of them, or a folder with `train/<class>/` and `val/<class>/` or `test/<class>/`.
        split: train or val.
        coarse: CIFAR-100's 20 superclasses.

    Raises:
        UsageError: there is nothing of these, or no superclasses.
        DataError: a file is truncated or damaged.
    """
    known = ("cifar-10-batches-py", "cifar-10-batches-bin", "cifar-100-python", "cifar-100-binary")
    folders = [path, *(path / name for name in known)]
    for folder in folders:
        if coarse and ((folder / "batches.meta").exists() or (folder / "batches.meta.txt").exists()):
            raise UsageError(f"--coarse: {folder} is CIFAR-10; only CIFAR-100 has superclasses")
        if (folder / "batches.meta").exists():
            names = [f"data_batch_{number}" for number in range(1, 6)] if split == "train" else ["test_batch"]
            return _from_pickles(folder, split, names, "batches.meta", "label_names", "labels")
        if (folder / "meta").exists():
            kind = "coarse" if coarse else "fine"
            return _from_pickles(folder, split, [_test(split)], "meta", f"{kind}_label_names", f"{kind}_labels")
        if (folder / "batches.meta.txt").exists():
            names = [f"data_batch_{number}.bin" for number in range(1, 6)] if split == "train" else ["test_batch.bin"]
            return _from_binary(folder, split, names, "batches.meta.txt", labels=1, which=0)
        if (folder / "fine_label_names.txt").exists():
            classes, which = f"{'coarse' if coarse else 'fine'}_label_names.txt", 0 if coarse else 1
            return _from_binary(folder, split, [f"{_test(split)}.bin"], classes, labels=2, which=which)
    if (path / "train").is_dir():
        if coarse:
            raise UsageError(f"--coarse: {path} holds class folders; only CIFAR-100's own files have superclasses")
        return _from_folders(path, split)
    raise UsageError(f"{path} holds none of {', '.join(known)}, and no train/<class>/ with images")


def _test(split: str) -> str:
    return "train" if split == "train" else "test"


def _from_pickles(folder: Path, split: str, names: list[str], meta: str, class_key: str, label_key: str) -> PixelRows:
    classes = tuple(map(os.fsdecode, _listed(folder / meta, _unpickled(folder / meta), class_key, (bytes, str))))
    files, labels, rows = list[str](), list[int](), []
    for name in names:
        batch = _unpickled(folder / name)
        numbers = _listed(folder / name, batch, label_key, int)
        called = _listed(folder / name, batch, "filenames", (bytes, str))
        data = batch.get(b"data")
        if not (isinstance(data, np.ndarray) and data.dtype == np.uint8 and data.shape[1:] == (_PIXELS,)):
            raise DataError(f"{folder / name}: not a CIFAR batch; fetch it again")
        if not len(data) == len(numbers) == len(called):
            raise DataError(f"{folder / name}: {len(data)} images, {len(numbers)} labels; fetch it again")
        rows.append(data)
        labels += numbers
        files += map(os.fsdecode, called)
    return _rows(np.concatenate(rows), split, classes, labels, files, folder)


def _listed(path: Path, batch: dict[bytes, Any], key: str, kind: type | tuple[type, ...]) -> list[Any]:
    """The list under ``key`` in what ``path`` holds, all of one kind."""
    values = batch.get(key.encode())
    if not isinstance(values, list) or not all(isinstance(value, kind) for value in values):
        raise DataError(f"{path}: not a CIFAR batch, for its {key} are no list of the right kind; fetch it again")
    return values


def _from_binary(folder: Path, split: str, names: list[str], class_file: str, *, labels: int, which: int) -> PixelRows:
    """Records of ``labels`` bytes and then the pixels; label number ``which`` counts."""
    classes = tuple(os.fsdecode(_read(folder / class_file)).split())
    rows = []
    for name in names:
        data = np.frombuffer(_read(folder / name), np.uint8)
        if not len(data) or len(data) % (labels + _PIXELS):
            raise DataError(f"{folder / name}: truncated at {len(data)} bytes; fetch it again")
        rows.append(data.reshape(-1, labels + _PIXELS))
    table = np.concatenate(rows)
    numbers = table[:, which].tolist()
    files = [f"{number:05d}" for number in range(len(table))]
    return _rows(table[:, labels:], split, classes, numbers, files, folder)


def _rows(
    data: np.ndarray, split: str, classes: tuple[str, ...], labels: list[int], files: list[str], folder: Path
) -> PixelRows:
    if strangers := sorted(set(labels) - set(range(len(classes)))):
        raise DataError(f"{folder}: labels {strangers[:5]} of {len(classes)} classes; fetch it again")
    keys = [f"{classes[label]}/{file}" for label, file in zip(labels, files)]
    return PixelRows(split, "single", classes, keys, labels, data)


def _from_folders(path: Path, split: str) -> ImageFiles:
    folders = [path / name for name in (("train",) if split == "train" else ("val", "test"))]
    folder = next((folder for folder in folders if folder.is_dir()), None)
    if folder is None:
        raise UsageError(f"{path} has train/, but neither val/ nor test/: expected one of them with <class>/<image>")
    classes = find_classes(path)
    entries, remarks = find_images(folder, classes)
    for remark in remarks:
        print(f"{split}: {remark}")
    return labelled_files(split, classes, entries, folder)


class _Unpickler(pickle.Unpickler):
    """Arrays and plain values only: a pickle may otherwise run any code."""

    def find_class(self, module: str, name: str) -> Any:
        allowed = {("multiarray", "_reconstruct"), ("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode")}
        if (module.rpartition(".")[2], name) in allowed:
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")


def _unpickled(path: Path) -> dict[bytes, Any]:
    try:
        with path.open("rb") as file:
            return dict(_Unpickler(file, encoding="bytes").load())
    except FileNotFoundError:
        raise UsageError(f"{path} is missing: fetch the whole archive again") from None
    except Exception as error:  # a damaged pickle may raise any
        raise DataError(f"{path}: {type(error).__name__}: {error}; fetch it again") from None


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise UsageError(f"{path} is missing: fetch the whole archive again") from None
