"""A graph of labels with its parts: how often classes occur together, sorted by part. C classes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from dataset.class_names import names_for_people
from utils.plots import plt, save
from utils.text import printable

_INCHES = 0.16  # a class


def plot(weights: np.ndarray, counts: np.ndarray, classes: Sequence[str], parts: Sequence[Sequence[str]]) -> Figure:
    """The weights of the graph, part after part, and a line around each part.

    Args:
        weights: [C, C], as `partition.graph.affinity` gives them.
        counts: images of each class, [C].
        classes: C names.
        parts: names of the classes of each.
    """
    place = {name: number for number, name in enumerate(classes)}
    order = [place[name] for part in parts for name in sorted(part, key=lambda name: -counts[place[name]])]
    side = max(5.0, _INCHES * len(order))
    figure, axes = plt.subplots(figsize=(side + 2, side), layout="constrained")
    image = axes.imshow(weights[np.ix_(order, order)], cmap="viridis", vmin=0)
    figure.colorbar(image, label="affinity", shrink=0.6)
    start = 0
    for number, part in enumerate(parts):
        box = (start - 0.5, start - 0.5)
        axes.add_patch(plt.Rectangle(box, len(part), len(part), fill=False, edgecolor="red", linewidth=1.5))
        axes.text(len(order) - 0.3, start + len(part) / 2 - 0.5, f"part {number}", va="center", color="red")
        start += len(part)
    called = names_for_people(classes)
    names = [f"{printable(called[label])} ({counts[label]})" for label in order]
    axes.set_yticks(range(len(order)), names, size=7)
    axes.set_xticks([])
    axes.set_title(f"{len(order)} classes in {len(parts)} parts, with the images of each")
    return figure


def draw(
    weights: np.ndarray, counts: np.ndarray, classes: Sequence[str], parts: Sequence[Sequence[str]], output: Path
) -> None:
    """`plot` as a PNG."""
    figure = plot(weights, counts, classes, parts)
    save(figure, output)
