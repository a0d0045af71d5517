"""What the best student of a run, or of an exported folder, says of images.

    python -m tools.predict runs/a image.jpg folder/            names and shares, best first
    python -m tools.predict runs/a folder/ --top 1              the best one alone
    python -m tools.predict runs/a folder/ --json               a JSON object a line, for other programs
    python -m tools.predict runs/boxes folder/ --save FOLDER    of a detector, pictures with the boxes drawn

Of several labels an image, and of boxes, those of at least --threshold are printed. Images are shown to the student as
in its validation. One that is damaged is named, the others go on, and the exit code is 3.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import numpy as np
import torch
from matplotlib import pyplot as plt

from dataset.class_names import names_for_people
from dataset.inspection.boxes import draw_boxes
from dataset.jpeg.decode import decode
from dataset.jpeg.images import read_image
from export.images import Damaged, Said, images_in, look_at
from export.student import student_of
from utils.console import exit_with_its_code
from utils.errors import DataError, UsageError
from utils.files import make_folder, write_atomically
from utils.text import counted, first_few, printable

_BOXES_FROM = 0.5  # score of a detection that is printed
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
    if options.save:
        make_folder(options.save, "--save")
    kind = "boxes" if task.detects else "labels" if task.logits == "sigmoid" else "shares"
    threshold = options.threshold
    if threshold is None:
        threshold = _BOXES_FROM if task.detects else getattr(task, "threshold", _BOXES_FROM)
    names = names_for_people(student.classes)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    damaged: list[Damaged] = []
    drawn: set[str] = set()
    for said in look_at(student, images_in(options.images), device):
        if isinstance(said, Damaged):
            damaged.append(said)
            print(f"{printable(str(said.path))}: {said.reason}", file=sys.stderr)
            continue
        rows = _ROWS[kind](said, student.classes, names, options.top, threshold)
        print(json.dumps({"file": str(said.path), kind: rows}) if options.json else line(said.path, kind, rows))
        if options.save:
            draw(said, rows, options.save / _free_name(said.path, drawn))
    if drawn:
        print(f"{options.save}: {counted(len(drawn), 'picture')}", file=sys.stderr)
    if damaged:
        paths = first_few([printable(str(one.path)) for one in damaged])
        raise DataError(f"{counted(len(damaged), 'image')} could not be read: {paths}")


def parse() -> argparse.Namespace:
    """Options.

    Raises:
        UsageError: there is something wrong with them.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("student", type=Path, help="folder of a run, or one that tools.export wrote")
    parser.add_argument("images", type=Path, nargs="+", help="image files, and folders that hold some")
    parser.add_argument("--top", type=int, default=5, help="how many classes are named of an image (default: 5)")
    parser.add_argument("--threshold", type=float, help="of labels: the run's own; of boxes: 0.5 (defaults)")
    parser.add_argument("--save", type=Path, metavar="FOLDER", help="folder for pictures with boxes")
    parser.add_argument("--json", action="store_true", help="print JSON lines")
    options = parser.parse_args()
    if options.top < 1:
        raise UsageError(f"--top {options.top}: at least 1")
    if options.threshold is not None and not 0 <= options.threshold <= 1:
        raise UsageError(f"--threshold {options.threshold:g}: 0 to 1")
    return options


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


def _free_name(path: Path, taken: set[str]) -> str:
    """A name for the picture of an image, another one than those that are ``taken``, which it is put among."""
    number, name = 1, f"{path.stem}.png"
    while name in taken:
        number += 1
        name = f"{path.stem}_{number}.png"
    taken.add(name)
    return name


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
    write_atomically(to, lambda file: figure.savefig(file, format="png", dpi=_DPI))
    plt.close(figure)


if __name__ == "__main__":
    main()
