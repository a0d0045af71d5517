"""What detectors find beside what is there: ground truth and the predictions of each run's best student.

python -m figures.detections runs/x [runs/y ...] [--images 12] [--threshold 0.5] [--output detections.png]

A row is an image, or two of them with a single run. Each class has its colour; dashed are difficult objects and crowds,
which are not scored.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from dataset.class_names import names_for_people
from dataset.inspection.boxes import draw_boxes
from figures.outputs import Detected, Photo, detections_of_run
from utils.console import exit_with_its_code, png
from utils.errors import UsageError
from utils.files import check_output
from utils.plots import plt, save
from utils.text import counted, printable

_WIDE, _TALL = 480, 400  # pixels in which an image stands
_GAP, _LINE, _TOP = 12, 22, 34  # between images; for the key of each; for the names above all
_COLUMNS = 4  # before images stand below each other alone
_DPI = 100


class Shown(NamedTuple):
    """Objects in an image, or detections; N of them."""

    boxes: np.ndarray  # [N, 4], pixels of the stored image
    classes: np.ndarray  # int [N]
    labels: list[str]  # N
    dashed: np.ndarray  # bool [N]


def plot(
    photos: Sequence[Photo],
    predictions: Mapping[str, Sequence[Detected]],
    classes: Sequence[str],
    threshold: float = 0.5,
) -> Figure:
    """Each photo with its objects, and beside it with the detections of each network.

    Args:
        photos: with their objects.
        predictions: by network, of each photo.
        classes: names.
        threshold: lowest score that is shown.
    """
    columns = 1 + len(predictions)
    across = max(1, min(_COLUMNS // columns, len(photos)))  # photos in a row
    group = columns * (_WIDE + _GAP) + _GAP
    lines = [photos[start : start + across] for start in range(0, len(photos), across)]
    tops = _TOP + np.cumsum([0, *(_LINE + max(_size(photo)[1] for photo in line) for line in lines)])  # of each row
    width, height = across * group + _GAP, float(tops[-1])
    figure = plt.figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI)
    dashed = any(photo.ignored.any() for photo in photos)
    names = [f"ground truth{', dashed: not scored' if dashed else ''}", *predictions]
    for place in range(across * columns):
        x = _GAP + place // columns * group + place % columns * (_WIDE + _GAP) + _WIDE / 2
        name = printable(names[place % columns])
        figure.text(x / width, 1 - _TOP / 2 / height, name, size=13, ha="center", va="center")
    for number, photo in enumerate(photos):
        row, place = divmod(number, across)
        left, bottom = _GAP + place * group, float(tops[row + 1]) - _LINE
        found = [_detections(network[number], classes, threshold) for network in predictions.values()]
        for column, shown in enumerate([_objects(photo, classes), *found]):
            _draw(figure, photo, shown, (left + column * (_WIDE + _GAP), bottom))
        key, at = printable(photo.key), (left / width, 1 - (bottom + _LINE / 2) / height)
        figure.text(*at, key, size=9, color="gray", va="center")
    return figure


def _objects(photo: Photo, classes: Sequence[str]) -> Shown:
    return Shown(photo.boxes, photo.classes, [classes[label] for label in photo.classes], photo.ignored)


def _detections(found: Detected, classes: Sequence[str], threshold: float) -> Shown:
    some = found.scores >= threshold
    labels = [f"{classes[label]} {score:.2f}" for label, score in zip(found.classes[some], found.scores[some])]
    return Shown(found.boxes[some], found.classes[some], labels, np.zeros(len(labels), bool))


def _size(photo: Photo) -> tuple[float, float]:
    """Width and height at which it is drawn, pixels."""
    high, wide = photo.window[2:].tolist()
    scale = min(_WIDE / wide, _TALL / high)
    return wide * scale, high * scale


def _draw(figure: Figure, photo: Photo, shown: Shown, place: tuple[float, float]) -> None:
    """The photo with boxes above ``place``, in pixels from the left and the top of the figure."""
    top, left, high, wide = photo.window.tolist()
    across, down = _size(photo)
    width, height = (figure.get_size_inches() * _DPI).tolist()
    x, y = place[0] + (_WIDE - across) / 2, height - place[1]
    axes = figure.add_axes((x / width, y / height, across / width, down / height), xticks=[], yticks=[])
    axes.imshow(photo.pixels, extent=(left, left + wide, top + high, top), aspect="auto")
    draw_boxes(axes, *shown)


@exit_with_its_code
def main() -> None:
    """Draw the runs on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="run folders of detectors of one split")
    parser.add_argument("--images", type=int, default=12, help="how many, spread over the split (default: 12)")
    parser.add_argument("--threshold", type=float, default=0.5, help="lowest score that is drawn (default: 0.5)")
    parser.add_argument("--output", type=png, help="PNG to write (default: detections.png in the first run)")
    options = parser.parse_args()
    if options.images < 1:
        raise UsageError(f"--images {options.images}: at least 1")
    runs = list(dict.fromkeys(options.runs))
    output = options.output or runs[0] / "detections.png"
    check_output(output)
    of_runs = {run: detections_of_run(run, options.images) for run in runs}
    first = of_runs[runs[0]]
    for run, other in of_runs.items():
        if (other.classes, other.split) != (first.classes, first.split):
            raise UsageError(f"{run} has other classes or other validation images than {runs[0]}: draw each alone")
    names = [run.name for run in runs]
    shown = names if len({*names}) == len(names) else [str(run) for run in runs]
    predictions = {name: of_runs[run].detected for name, run in zip(shown, runs)}
    figure = plot(first.photos, predictions, names_for_people(first.classes), options.threshold)
    save(figure, output, _DPI)
    for name, photos in predictions.items():
        count = sum(int((found.scores >= options.threshold).sum()) for found in photos)
        print(f"{printable(name)}: {counted(count, 'detection')} of {options.threshold:g} or more")
    print(output)


if __name__ == "__main__":
    main()
