"""How the targets of records become arrays of a batch. NumPy only: decoding processes do it. B samples, K classes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np

from dataset.store.record import Boxes, classes_of
from utils.errors import DataError

Arrays = dict[str, np.ndarray]
Fields = Mapping[str, tuple[type, tuple[int, ...]]]  # of arrays, by name: type and shape


class Window(NamedTuple):
    """What a square of S x S pixels shows of a stored image, in pixels of that; it may reach beyond."""

    top: float
    left: float
    height: float
    width: float


class Targets(Protocol):
    """What a task makes of the targets of records."""

    def layout(self, rows: int) -> Fields:
        """The arrays of ``rows`` samples; none of them is called `images`, `index` or `jitter`."""
        ...

    def put(self, target: Any, window: Window, mirror: bool, out: Arrays, row: int) -> None:
        """Write the ``target`` of a record to ``row`` of the arrays.

        Args:
            target: as `dataset.store.record` gives it.
            window: where the crop lies in the image.
            mirror: whether left and right are exchanged after that.
            out: the arrays of `layout`.
            row: which.

        Raises:
            DataError: the target is not of this task.
        """
        ...


class Labels:
    """One class an image: `labels` int64 [B], each from 0 to K - 1."""

    def __init__(self, classes: int) -> None:
        self._classes = classes

    def layout(self, rows: int) -> Fields:
        """One array."""
        return {"labels": (np.int64, (rows,))}

    def put(self, target: object, window: Window, mirror: bool, out: Arrays, row: int) -> None:
        """The same for every window."""
        if type(target) is not int or not 0 <= target < self._classes:
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
