"""Boxes on a picture, each class in its colour, with labels that stand beside the objects. N boxes."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.patheffects import AbstractPathEffect, withStroke

from utils.text import printable

_LETTER, _LINE = 0.62, 1.35  # width of a letter and height of a line, of the font size
_COLORS = 12  # hues, before they come again in other shades
_RIM: list[AbstractPathEffect] = [withStroke(linewidth=2.5, foreground="black", alpha=0.5)]


def draw_boxes(
    axes: Axes, boxes: np.ndarray, classes: np.ndarray, labels: Sequence[str], dashed: np.ndarray, size: float = 7
) -> None:
    """Draw boxes on the image of ``axes``, large ones first; what lies beyond the image is left out.

    A label stands at a corner of its box, where it covers as little as can be of other labels, of its own object and of
    others.

    Args:
        axes: with limits that are edges of pixels.
        boxes: [N, 4], x1, y1, x2, y2 in the units of ``axes``.
        classes: int [N].
        labels: N.
        dashed: bool [N].
        size: of the letters, points.
    """
    axes.apply_aspect()
    (left, right), (low, high) = sorted(axes.get_xlim()), sorted(axes.get_ylim())
    frame = np.array([left, low, right, high])
    area = axes.get_window_extent()
    unit = np.array([(right - left) / area.width, (high - low) / area.height]) * axes.figure.dpi / 72  # of a point
    shown = np.concatenate([boxes[:, :2].clip(frame[:2], frame[2:]), boxes[:, 2:].clip(frame[:2], frame[2:])], 1)
    sides = shown[:, 2:] - shown[:, :2]
    falling = np.argsort(-sides.prod(1), kind="stable")
    falling = falling[(sides[falling] > 0).all(1)]
    for number in falling:
        x1, y1, x2, y2 = boxes[number].tolist()
        color, style = class_color(int(classes[number])), (0, (3, 2)) if dashed[number] else "-"
        box = Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, color=color, linewidth=1.5, linestyle=style)
        box.set_path_effects(_RIM)
        axes.add_patch(box)
    taken = np.zeros((0, 4))  # by labels
    for number in falling[::-1]:  # those of small objects have fewer places to go
        text, color = printable(labels[number]), class_color(int(classes[number]))
        around = _around(
            shown[number], np.array([_LETTER * size * (len(text) + 0.5), _LINE * size]) * unit, frame
        )  # [places, 4]
        hidden = _shared(around, shown[falling]).sum(1) + 3 * _shared(around, shown[[number]]).sum(1)
        x1, y1, x2, y2 = around[(hidden + 30 * _shared(around, taken).sum(1)).argmin()]
        taken = np.concatenate([taken, [[x1, y1, x2, y2]]])
        axes.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, color=color, alpha=0.85, linewidth=0))
        axes.text(
            (x1 + x2) / 2,
            (y1 + y2) / 2,
            text,
            color="black" if _light(color) > 0.5 else "white",
            size=size,
            ha="center",
            va="center_baseline",
        )


def class_color(label: int) -> tuple[float, float, float]:
    """The colour of a class, red, green and blue of 0 to 1."""
    shade, place = divmod(label, _COLORS)
    hue = (5 * place % _COLORS + shade % 3 / 3) / _COLORS  # neighbours are far apart
    rgb = colorsys.hsv_to_rgb(hue, (0.85, 0.5, 0.85)[shade % 3], (1.0, 1.0, 0.75)[shade % 3])
    dark = max(0.0, 0.4 - _light(rgb))  # blue is, of these
    red, green, blue = (channel + dark * (1 - channel) for channel in rgb)
    return red, green, blue


def _light(color: tuple[float, float, float]) -> float:
    """How light the eye finds it, 0 to 1 (ITU-R BT.601)."""
    return float(np.dot(color, (0.299, 0.587, 0.114)))


def _around(box: np.ndarray, size: np.ndarray, frame: np.ndarray) -> np.ndarray:
    """Where a label of this width and height may stand: at the corners outside and inside, moved into the frame."""
    (x1, y1, x2, y2), (wide, tall) = box, size
    corners = [(x, y) for y in (y1 - tall, y2, y1, y2 - tall) for x in (x1, x2 - wide)]
    corners += [(x, y) for x in (x2, x1 - wide) for y in (y1, y2 - tall)]
    starts = np.array(corners).clip(frame[:2], np.maximum(frame[:2], frame[2:] - size))
    return np.concatenate([starts, starts + size], 1)


def _shared(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """What boxes share, of [N, 4] and [M, 4], [N, M]."""
    sides = np.minimum(a[:, None, 2:], b[None, :, 2:]) - np.maximum(a[:, None, :2], b[None, :, :2])
    return sides.clip(0).prod(2)
