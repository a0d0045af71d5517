"""From pixels of a batch back to those of the stored images. B images, N boxes of each."""

from __future__ import annotations

import numpy as np


def in_stored_pixels(boxes: np.ndarray, windows: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Boxes of views that are not mirrored, float64 [B, N, 4], x1, y1, x2, y2 in pixels of the stored images.

    Args:
        boxes: [B, N, 4], in pixels of the batch.
        windows: [B, 4], top, left, height and width of what is shown, in pixels of the stored images.
        sizes: [B, 2], height and width that it has in the batch.
    """
    scale = windows[:, 2:] / sizes  # [B, 2]
    return boxes.astype(np.float64) * scale[:, None, [1, 0, 1, 0]] + windows[:, None, [1, 0, 1, 0]]
