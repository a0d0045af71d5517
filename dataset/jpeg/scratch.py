"""Memory that is used again for every image, for fresh memory costs a page fault every 4 KiB."""

from __future__ import annotations

import threading

import numpy as np

_local = threading.local()


def scratch(name: str, size: int) -> np.ndarray:
    """``size`` bytes, uint8, of this thread's buffer of that name, which the next call overwrites."""
    buffer = getattr(_local, name, None)
    if buffer is None or len(buffer) < size:
        buffer = np.empty(size + (size >> 2), np.uint8)
        setattr(_local, name, buffer)
    return buffer[:size]
