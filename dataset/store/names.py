"""Millions of names without millions of objects, which every decoding process would hold."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np


class PackedNames:
    """Byte strings by position, in one piece of memory."""

    def __init__(self, names: Iterable[bytes]) -> None:
        joined = list(names)
        self._ends = np.cumsum([0, *map(len, joined)])
        self._text = b"".join(joined)

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __iter__(self) -> Iterator[bytes]:
        return map(self.__getitem__, range(len(self)))

    def __getitem__(self, index: int) -> bytes:
        return self._text[self._ends[index] : self._ends[index + 1]]
