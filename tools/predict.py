"""What the best student of a run, or of an exported folder, says of images.

    python -m tools.predict runs/a image.jpg folder/            names and shares, best first
    python -m tools.predict runs/a folder/ --top 1              the best one alone
    python -m tools.predict runs/a folder/ --json               a JSON object a line, for other programs
    python -m tools.predict runs/boxes folder/ --save FOLDER    of a detector, pictures with the boxes drawn

Of several labels an image, and of boxes, those of at least --threshold are printed. Images are shown to the student as
in its validation. One that is damaged or missing is named, the others go on, and the exit code is 3. --save replaces no
file.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dataset.class_names import names_for_people
from dataset.inspection.boxes import draw_boxes
from dataset.jpeg.decode import decode
from dataset.jpeg.images import read_image
from export.images import Damaged, Said, images_in, look_at
from export.student import student_of
from utils.console import exit_with_its_code
from utils.errors import DataError, UsageError
from utils.files import make_folder
from utils.plots import plt, save
from utils.text import counted, first_few, printable

_BOXES_FROM = 0.5  # score of a detection that is printed
_TOP = 5
_DPI = 100


@exit_with_its_code
def main() -> None:
    """Print what the command line asks for."""
    options = parse()
    student = student_of(options.student)
    task = student.settings.made_task()
    if student.output != "logits":
        raise UsageError(
            f"{options.student} has learned features, and no classes that could be named: use tools.export"
        )
    if options.save and not task.detects:
        raise UsageError(f"--save draws boxes, and {options.student} is no detector")
    kind = "boxes" if task.detects else "labels" if task.logits == "sigmoid" else "shares"
    if kind == "shares" and options.threshold is not None:
        raise UsageError(f"--threshold: {options.student} has one class an image: use --top")
    if kind != "shares" and options.top is not None:
        raise UsageError(f"--top: of {options.student} all {kind} of at least --threshold are named: use that")
    paths, missing = images_in(options.images)
    pictures = pictures_of(paths, options.save) if options.save else {}
    top, threshold = options.top or _TOP, options.threshold
    if threshold is None:
        threshold = _BOXES_FROM if task.detects else getattr(task, "threshold", _BOXES_FROM)
    names = names_for_people(student.classes)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    damaged: list[Damaged] = []
    drawn = 0
    for said in itertools.chain(missing, look_at(student, paths, device)):
        if isinstance(said, Damaged):
            damaged.append(said)
            print(f"{printable(str(said.path))}: {said.reason}", file=sys.stderr)
            continue
        rows = _ROWS[kind](said, student.classes, names, top, threshold)
        print(json.dumps({"file": str(said.path), kind: rows}) if options.json else line(said.path, kind, rows))
        if options.save:
            draw(said, rows, pictures[said.path])
            drawn += 1
    if drawn:
        print(f"{options.save}: {counted(drawn, 'picture')}", file=sys.stderr)
    if damaged:
        named = first_few([printable(str(one.path)) for one in damaged])
        raise DataError(f"{counted(len(damaged), 'image')} could not be read: {named}")


def parse() -> argparse.Namespace:
    """Options.

    Raises:
        UsageError: there is something wrong with them.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("student", type=Path, help="folder of a run, or one that tools.export wrote")
    parser.add_argument("images", type=Path, nargs="+", help="image files, and folders that hold some")
    parser.add_argument("--top", type=int, help=f"how many classes are named of an image (default: {_TOP})")
    parser.add_argument("--threshold", type=float, help="of labels: the run's own; of boxes: 0.5 (defaults)")
    parser.add_argument("--save", type=Path, metavar="FOLDER", help="folder for pictures with boxes")
    parser.add_argument("--json", action="store_true", help="print JSON lines")
    options = parser.parse_args()
    if options.top is not None and options.top < 1:
        raise UsageError(f"--top {options.top}: at least 1")
    if options.threshold is not None and not 0 <= options.threshold <= 1:
        raise UsageError(f"--threshold {options.threshold:g}: 0 to 1")
    return options


def pictures_of(paths: Sequence[Path], folder: Path) -> dict[Path, Path]:
    """A file in ``folder``, which is made, for the picture of each image.

    Raises:
        UsageError: something else is there, or the folder cannot be written to.
    """
    pictures: dict[Path, Path] = {}
    taken = set[Path]()
    for path in paths:
        number, picture = 1, folder / f"{path.stem}.png"
        while picture in taken:
            number += 1
            picture = folder / f"{path.stem}_{number}.png"
        if os.path.lexists(picture):
            raise UsageError(f"--save {folder}: {printable(picture.name)} is there already: name another folder")
        taken.add(picture)
        pictures[path] = picture
    make_folder(folder, "--save")
    return pictures


Rows = list[dict[str, Any]]


def _shares(said: Said, classes: tuple[str, ...], names: list[str], top: int, _threshold: float) -> Rows:
    shares = torch.from_numpy(said.logits).softmax(0).tolist()
    best = np.argsort(-said.logits, kind="stable")[:top].tolist()
    return [{"class": classes[number], "name": names[number], "share": round(shares[number], 6)} for number in best]


def _labels(said: Said, classes: tuple[str, ...], names: list[str], _top: int, threshold: float) -> Rows:
    shares = torch.from_numpy(said.logits).sigmoid().tolist()
    best = [number for number in np.argsort(-said.logits, kind="stable").tolist() if shares[number] >= threshold]
    return [{"class": classes[number], "name": names[number], "share": round(shares[number], 6)} for number in best]


def _boxes(said: Said, classes: tuple[str, ...], names: list[str], _top: int, threshold: float) -> Rows:
    rows = zip(said.boxes.tolist(), said.classes.tolist(), said.scores.tolist())
    return [
        {
            "class": classes[number],
            "name": names[number],
            "score": round(score, 6),
            "box": [round(edge, 2) for edge in box],
        }
        for box, number, score in rows
        if score >= threshold
    ]


_ROWS: dict[str, Callable[..., Rows]] = {"shares": _shares, "labels": _labels, "boxes": _boxes}


def line(path: Path, kind: str, rows: Rows) -> str:
    """What is printed of an image: a line, and of boxes one more for each."""
    if kind == "boxes":
        found = [f"  {printable(row['name'])} {row['score']:.2f}  {_edges(row['box'])}" for row in rows]
        return "\n".join([f"{printable(str(path))}: {counted(len(rows), 'object')}", *found])
    said = ", ".join(f"{printable(row['name'])} {100 * row['share']:.1f} %" for row in rows) or "none of the classes"
    return f"{printable(str(path))}: {said}"


def _edges(box: list[float]) -> str:
    return " ".join(f"{edge:.0f}" for edge in box)


def draw(said: Said, rows: Rows, to: Path) -> None:
    """Write the picture of an image with the boxes of ``rows``, pixel by pixel."""
    pixels = decode(read_image(said.path))
    height, width = pixels.shape[:2]
    figure = plt.figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI)
    axes = figure.add_axes((0, 0, 1, 1), xticks=[], yticks=[], frame_on=False)
    axes.imshow(pixels, extent=(0, width, height, 0), aspect="auto")
    labels = [f"{row['name']} {row['score']:.2f}" for row in rows]
    boxes = np.array([row["box"] for row in rows], np.float64).reshape(-1, 4)
    draw_boxes(axes, boxes, said.classes[: len(rows)], labels, np.zeros(len(rows), bool))
    save(figure, to, _DPI)


if __name__ == "__main__":
    main()
