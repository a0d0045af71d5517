"""Canvases of handwritten digits, which the demos of several objects an image learn from.

The digits are scikit-learn's (UCI, 8 x 8 pixels in sixteen gray levels); train and val show different ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from statistics import mean, stdev
from typing import NamedTuple

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from demo.__main__ import TRAINING_IMAGES
from utils.console import progress

_CONTRASTS = (0.4, 1.0)
_OVERLAP = 0.15  # of a digit's square with those before it, the largest share
_TRIES = 100  # to find a place for a digit
_INK = 4  # gray level from which a pixel is of the digit


class Kind(NamedTuple):
    """What canvases are like."""

    side: int  # pixels
    fewest: int  # digits
    most: int
    sizes: tuple[int, int] = (8, 13)  # side of a digit, pixels


class Digit(NamedTuple):
    """A digit on a canvas, and the corners of its ink: x1, y1, x2, y2 in pixels."""

    label: int
    box: tuple[float, float, float, float]


SINGLE = Kind(16, 1, 1)


def canvases(kind: Kind, split: str, count: int) -> Iterator[tuple[np.ndarray, list[Digit]]]:
    """So many canvases, uint8 [side, side], of a split, each with its digits; always the same."""
    digits, number = load_digits(), ("train", "val").index(split)
    part = slice(TRAINING_IMAGES, None) if number else slice(TRAINING_IMAGES)
    rng = np.random.default_rng((number, kind.most))
    for _ in range(count):
        many = rng.integers(kind.fewest, kind.most + 1)
        chosen = rng.choice(np.arange(len(digits.images))[part], many, replace=False)
        yield draw_canvas(digits.images[chosen], digits.target[chosen], kind, rng)


def draw_canvas(
    images: np.ndarray, labels: np.ndarray, kind: Kind, rng: np.random.Generator
) -> tuple[np.ndarray, list[Digit]]:
    """Digits [N, 8, 8] of classes [N] on a canvas, uint8 [side, side]; one for which there is no place is left out."""
    side = kind.side
    canvas, taken, drawn = np.zeros((side, side)), np.zeros((side, side), bool), list[Digit]()
    for pixels, label in zip(images, labels):
        size, contrast = int(rng.integers(kind.sizes[0], kind.sizes[1] + 1)), rng.uniform(*_CONTRASTS)
        for top, left in rng.integers(0, side - size + 1, (_TRIES, 2)):
            window = slice(top, top + size), slice(left, left + size)
            if taken[window].mean() <= _OVERLAP:
                scaled = Image.fromarray(pixels.astype(np.float32)).resize((size, size), Image.Resampling.BICUBIC)
                canvas[window] = np.maximum(canvas[window], contrast * np.asarray(scaled) / 16)
                taken[window] = True
                rows, columns = (np.flatnonzero((pixels >= _INK).any(axis)) for axis in (1, 0))
                (x1, x2), (y1, y2) = ((inked[0], inked[-1] + 1) for inked in (columns, rows))
                corners = np.array([x1, y1, x2, y2]) * size / len(pixels) + np.array([left, top, left, top])
                drawn.append(Digit(int(label), tuple(corners.tolist())))
                break
    return (255 * canvas.clip(0, 1)).astype(np.uint8), drawn


def write_listed(folder: Path, kind: Kind, counts: dict[str, int]) -> None:
    """Canvases as `images/train/<number>.jpg` and `images/val/...` with `lists/train_list.txt`, `val_list.txt` and
    `classes.txt`: the labels of each are those of its digits. Those that are there stay."""
    lists = folder / "lists"
    lists.mkdir(parents=True, exist_ok=True)
    (lists / "classes.txt").write_text("".join(f"{label}\n" for label in range(10)))
    for split, count in counts.items():
        lines = []
        for name, digits in write_images(folder / "images" / split, kind, split, count):
            lines.append(" ".join(map(str, (name, *sorted({digit.label for digit in digits})))))
        (lists / f"{split}_list.txt").write_text("\n".join(lines) + "\n")


def write_images(folder: Path, kind: Kind, split: str, count: int) -> Iterator[tuple[str, list[Digit]]]:
    """Canvases as `<number>.jpg`, unless they are there: the name and the digits of each."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn = progress(iterable=canvases(kind, split, count), total=count, desc=f"{folder}")
    for number, (canvas, digits) in enumerate(drawn):
        path = folder / f"{number:04d}.jpg"
        if not path.exists():
            Image.fromarray(canvas).save(path, quality=95)
        yield path.name, digits


def pack_listed(folder: Path, output: Path, split: str) -> list[str]:
    """The packing tool for a split of what `write_listed` wrote."""
    paths = {"image_path": folder / "images", "list_path": folder / "lists", "output_path": output}
    words = [word for flag, path in paths.items() for word in (f"--{flag}", str(path))]
    return ["dataset/img2lmdb.py", *words, "--split", split]


def shown(scores: list[float]) -> str:
    """The mean, and the standard deviation of several."""
    return f"{mean(scores):5.2f}" + (f" +- {stdev(scores):.2f}" if len(scores) > 1 else "")
