"""How the targets of records become arrays of a batch. NumPy only: decoding processes do it. B samples, K classes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np

from dataset.store.record import UNLABELLED, Boxes, classes_of
from utils.errors import DataError

Arrays = dict[str, np.ndarray]
Fields = Mapping[str, tuple[type, tuple[int, ...]]]  # of arrays, by name: type and shape


class Window(NamedTuple):
    """What a batch shows of a stored image, in pixels of that; it may reach beyond."""

    top: float
    left: float
    height: float
    width: float


class Targets(Protocol):
    """What a task makes of the targets of records."""

    def layout(self, rows: int) -> Fields:
        """The arrays of ``rows`` samples; none is called `images`, `canvas`, `sizes`, `index` or `jitter`."""
        ...

    def put(self, target: Any, window: Window, mirror: bool, out: Arrays, row: int) -> None:
        """Write the ``target`` of a record to ``row`` of the arrays.

        Args:
            target: as `dataset.store.record` gives it.
            window: where the crop lies in the image.
            mirror: whether left and right are exchanged after that.
            out: the arrays of `layout`, and `sizes` int64 [rows, 2], height and width that the window has in the batch.
            row: which.

        Raises:
            DataError: the target is not of this task.
        """
        ...


class Labels:
    """One class an image: `labels` int64 [B], each from 0 to K - 1; -1 in a split without labels."""

    def __init__(self, classes: int) -> None:
        self._classes = classes

    def layout(self, rows: int) -> Fields:
        """One array."""
        return {"labels": (np.int64, (rows,))}

    def put(self, target: object, window: Window, mirror: bool, out: Arrays, row: int) -> None:
        """The same for every window."""
        if type(target) is not int or not (0 <= target < self._classes or target == UNLABELLED):
            raise DataError(f"{target!r:.80} is not a label in 0 to {self._classes - 1}")
        out["labels"][row] = target


class Present:
    """Several classes an image, or none: `present` int8 [B, K], 1 for those present, -1 to be ignored, else 0.

    They are those of the whole image, whatever the crop shows. Of boxes, a class whose objects are all difficult is to
    be ignored.
    """

    def __init__(self, classes: int) -> None:
        self._classes = classes

    def layout(self, rows: int) -> Fields:
        """One array."""
        return {"present": (np.int8, (rows, self._classes))}

    def put(self, target: object, window: Window, mirror: bool, out: Arrays, row: int) -> None:
        """The same for every window."""
        if not isinstance(target, int | tuple | Boxes):
            raise DataError(f"{target!r:.80} is no list of classes")
        present, ignored = classes_of(target)
        if not all(label < self._classes for label in (*present, *ignored)):
            raise DataError(f"{target!r:.80} has a class that is not in 0 to {self._classes - 1}")
        out["present"][row] = 0
        out["present"][row, present] = 1
        out["present"][row, ignored] = -1


class Objects:
    """Objects in boxes: those of the whole image, and where the crop shows them; M places for each image.

    `boxes` float32 [B, M, 4], x1, y1, x2, y2 in pixels of the batch, cut off at the edges of the crop; `classes` int64
    [B, M], -1 where there is no object; `learned` int8 [B, M], 1 for those to learn from, -1 for those to be ignored, 0
    for others; `original_boxes` float64 [B, M, 4] in pixels of the stored image; `areas` float64 [B, M], of the masks
    of objects where these are known, else of the boxes; `crowd` and `difficult` bool [B, M]; `windows` float64 [B, 4],
    what the crop shows.

    Args:
        classes: K.
        most: M.
        difficult: what becomes of difficult objects: ignore, remove or learn.
        least_shown: share of an object's box that a crop must show for it to be learned; with less, or less than a
            pixel wide or high there, it is ignored.
    """

    def __init__(self, classes: int, *, most: int, difficult: str, least_shown: float) -> None:
        self._classes, self._most = classes, most
        self._difficult = {"ignore": -1, "remove": 0, "learn": 1}[difficult]
        self._least_shown = least_shown

    def layout(self, rows: int) -> Fields:
        """Eight arrays."""
        most = (rows, self._most)
        return {
            "boxes": (np.float32, (*most, 4)),
            "classes": (np.int64, most),
            "learned": (np.int8, most),
            "original_boxes": (np.float64, (*most, 4)),
            "areas": (np.float64, most),
            "crowd": (np.bool_, most),
            "difficult": (np.bool_, most),
            "windows": (np.float64, (rows, 4)),
        }

    def put(self, target: object, window: Window, mirror: bool, out: Arrays, row: int) -> None:
        """The boxes, and what of them the window shows."""
        if not isinstance(target, Boxes):
            raise DataError(f"{target!r:.80} has no boxes: pack the split with --boxes")
        count = len(target.labels)
        if count > self._most:
            raise DataError(f"{count} objects, more than task_options.most_objects={self._most}: raise it")
        if not all(0 <= label < self._classes for label in target.labels):
            raise DataError(f"{target.labels!r:.80} has a class that is not in 0 to {self._classes - 1}")
        for name in self.layout(1):
            out[name][row] = -1 if name == "classes" else 0
        out["windows"][row] = window
        boxes = np.array(target.boxes, np.float64).reshape(count, 4)
        crowd, difficult = np.array(target.crowd, bool), np.array(target.difficult, bool)
        area = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)  # [count]
        shown = _shown(boxes, window, mirror, out["sizes"][row])
        lengths = shown[:, 2:] - shown[:, :2]  # [count, 2]
        scale = np.prod(out["sizes"][row] / np.array(window[2:]))
        learned = np.where(crowd, -1, np.where(difficult, self._difficult, 1))
        visible = np.prod(lengths, axis=1) >= self._least_shown * area * scale * (1 - 1e-9)
        learned = np.where(learned == 1, np.where(visible & (lengths >= 1).all(axis=1), 1, -1), learned)
        learned[(lengths <= 0).any(axis=1)] = 0
        shown[(lengths <= 0).any(axis=1)] = 0
        columns = {
            "boxes": shown,
            "classes": target.labels,
            "learned": learned,
            "original_boxes": boxes,
            "areas": target.object_areas,
            "crowd": crowd,
            "difficult": difficult,
        }
        for name, column in columns.items():
            out[name][row, :count] = column


def _shown(boxes: np.ndarray, window: Window, mirror: bool, size: np.ndarray) -> np.ndarray:
    """Boxes [N, 4] of an image as a window shows it with height and width ``size``, cut off at its edges."""
    high, wide = size.tolist()
    x, y = (boxes[:, [axis, axis + 2]] for axis in (0, 1))  # [N, 2] each
    x = ((x - window.left) * (wide / window.width)).clip(0, wide)
    y = ((y - window.top) * (high / window.height)).clip(0, high)
    if mirror:
        x = wide - x[:, ::-1]
    return np.stack([x[:, 0], y[:, 0], x[:, 1], y[:, 1]], axis=1)
