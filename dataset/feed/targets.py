"""How the targets of records become arrays of a batch. NumPy only: decoding processes do it. B samples, K classes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np

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
