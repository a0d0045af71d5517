"""A contact sheet of a split: images of all classes with their boxes, or with training windows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from dataset.class_names import names_for_people
from dataset.config import DataConfig
from dataset.feed import crops
from dataset.inspection.boxes import draw_boxes
from dataset.jpeg.decode import decode, window_intervals
from dataset.jpeg.header import jpeg_header
from dataset.store.record import Boxes, Record, classes_of, is_unlabelled
from dataset.store.samples import Samples
from utils.errors import DataError
from utils.plots import plt, save
from utils.text import printable

_ROWS, _COLUMNS = 4, 6
_COLORS = ("#ff3b5c", "#ffd60a", "#30d5ff")  # of the windows
_WINDOWS = "red, yellow, blue: training windows; bright: what decoding the red one reads"
_BOXES = "a colour a class; dashed: difficult, or a crowd"

Window = tuple[int, int, int, int]  # top, left, height, width
Faults = dict[int | str, str]  # number of a record, or name of a file: what is wrong with it


def draw_sheet(samples: Samples, labels: np.ndarray, output: Path, faults: Faults) -> None:
    """Draw images of all classes: with boxes, or with three training windows and what decoding the first one reads.

    Args:
        samples: the split.
        labels: int32 [N], or int8 [N, C].
        output: PNG to write.
        faults: images that cannot be read are added.
    """
    figure, axes = plt.subplots(_ROWS, _COLUMNS, figsize=(16, 12))
    figure.subplots_adjust(0.01, 0.04, 0.99, 0.96, wspace=0.08, hspace=0.17)
    for axis in axes.flat:
        axis.set_axis_off()
    boxed = False
    names = names_for_people(samples.classes)
    for axis, index in zip(axes.flat, _over_classes(labels, len(samples.classes), axes.size)):
        record = read_or_note(samples, index, faults)
        if record is not None:
            boxed = isinstance(record.target, Boxes)
            try:
                _draw(axis, record, index, names)
            except DataError as error:
                faults[index] = str(error)
    figure.suptitle(_BOXES if boxed else _WINDOWS, size=11)
    save(figure, output, 100)


def _over_classes(labels: np.ndarray, classes: int, count: int) -> list[int]:
    """At most ``count`` samples, spread evenly over the classes that have any and over the images of each, or over all
    where none is labelled."""
    if is_unlabelled(labels):
        return np.unique(np.linspace(0, len(labels) - 1, min(count, len(labels))).astype(np.int64)).tolist()
    present = np.flatnonzero(images_a_class(labels, classes))
    shown = present[np.arange(count) * len(present) // count] if len(present) else present
    samples: list[int] = []
    for label, times in zip(*np.unique(shown, return_counts=True)):
        members = np.setdiff1d(np.flatnonzero(labels[:, label] > 0 if labels.ndim == 2 else labels == label), samples)
        places = np.linspace(0, len(members) - 1, min(times, len(members))).astype(np.int64)
        samples += members[places].tolist()
    return samples


def _draw(axis: Axes, record: Record, index: int, classes: Sequence[str]) -> None:
    pixels = decode(record.image)
    axis.set_anchor("S")
    if isinstance(record.target, Boxes):
        _draw_boxes(axis, pixels, record.target, classes)
    else:
        _draw_windows(axis, pixels, record, index)
    present, ignored = ([classes[label] for label in some] for some in classes_of(record.target))
    names = ", ".join([*present, *(f"({name})" for name in ignored)])
    for text, color, below in ((names, "black", 4), (record.key, "gray", 16)):
        axis.annotate(
            _short(text),
            (0.5, 0),
            (0, -below),
            xycoords="axes fraction",
            textcoords="offset points",
            ha="center",
            va="top",
            size=8.5,
            color=color,
        )


def _draw_boxes(axis: Axes, pixels: np.ndarray, target: Boxes, classes: Sequence[str]) -> None:
    height, width = pixels.shape[:2]
    axis.imshow(pixels, extent=(0, width, height, 0))
    boxes, labels = np.array(target.boxes, np.float64).reshape(-1, 4), np.array(target.labels, np.int64)
    ignored = np.array(target.difficult, bool) | np.array(target.crowd, bool)
    draw_boxes(axis, boxes, labels, [_short(classes[label], 16) for label in target.labels], ignored, size=6)


def _draw_windows(axis: Axes, pixels: np.ndarray, record: Record, index: int) -> None:
    size = pixels.shape[:2]
    windows = training_windows(index, size, len(_COLORS))
    axis.imshow(np.where(_is_read(record.image, windows[0], size)[..., None], pixels, pixels // 2))
    for (top, left, height, width), color in reversed(list(zip(windows, _COLORS))):
        axis.add_patch(Rectangle((left - 0.5, top - 0.5), width, height, fill=False, color=color, linewidth=2))


def _is_read(data: bytes, window: Window, size: tuple[int, int]) -> np.ndarray:
    """Which pixels decoding ``window`` decodes, bool [H, W]."""
    intervals = window_intervals(data, window)
    if intervals is None:
        return np.ones(size, bool)
    high, wide = jpeg_header(data).mcu
    read = np.zeros((-(-size[0] // high), -(-size[1] // wide)), bool)  # MCUs
    for _, _, first, end in intervals.tolist():
        read.flat[first:end] = True
    return read.repeat(high, axis=0).repeat(wide, axis=1)[: size[0], : size[1]]


def _short(text: str, length: int = 34) -> str:
    text = printable(text)
    return text if len(text) <= length else f"{text[: length // 2 - 2]} ... {text[3 - length // 2 :]}"


def training_windows(index: int, size: tuple[int, int], epochs: int) -> list[Window]:
    """The windows that training with seed 0 and the settings' defaults shows of a sample in the first epochs."""
    numbers = np.concatenate([crops.uniform(0, epoch, np.array([index]), crops.WINDOW) for epoch in range(epochs)])
    sizes = np.array([size] * epochs)
    windows = crops.random_resized_crop(numbers[:, 4:], sizes, DataConfig.scale, DataConfig.ratio)
    return [tuple(window) for window in windows.tolist()]


def images_a_class(labels: np.ndarray, classes: int) -> np.ndarray:
    """How many images show each class, int [C]; labels: int [N], or int8 [N, C]."""
    return (labels > 0).sum(axis=0) if labels.ndim == 2 else np.bincount(labels, minlength=classes)


def read_or_note(samples: Samples, index: int, faults: Faults) -> Record | None:
    """The record at ``index``; what is wrong with one that cannot be read is added to ``faults``."""
    try:
        return samples.read(index)
    except DataError as error:
        faults[index] = str(error)
        return None
