"""Images resized and cropped to pixels of a batch: many in one call of the codec, or one as a stock decoder shows it.

What is shown along an axis of an image is six numbers, int64: ORIGIN and LENGTH, the pixels that are resized; RESIZED,
to how many; BEGIN and COUNT, which of these; MIRROR, whether in reverse order.
"""

from __future__ import annotations

import time

import cv2
import numpy as np

from dataset.jpeg.codec import address, library, writable
from dataset.jpeg.decode import decode_window
from dataset.jpeg.resize import FilterWeights, filter_weights, resample
from dataset.jpeg.scratch import scratch

ORIGIN, LENGTH, RESIZED, BEGIN, COUNT, MIRROR = range(6)

_INTERPOLATION = {"linear": cv2.INTER_LINEAR, "area": cv2.INTER_AREA}
_IMAGE, _SIZE, _AXES, _OUT, _STRIDE = 0, 1, slice(2, 14), 14, 15  # of a view in view.h, int64 [16]


def show_planes(
    images: list[bytes | None],
    axes: np.ndarray,
    places: np.ndarray,
    out: np.ndarray,
    row: int,
    watch: np.ndarray,
    spent: np.ndarray,
) -> np.ndarray:
    """Fill ``out``, uint8 [N, H, W, 3] and contiguous, in one call without the GIL.

    Luma and chroma are resized each from its own resolution and converted to RGB once, in fixed point of 16 bits:
    Pillow's bilinear resize of libjpeg's pixels to within rounding, but where colours are clipped (docs/format.md).

    Args:
        images: N files; sequential JPEGs of one scan, gray or of three components, are shown, others are not.
        axes: int64 [N, 2, 6], vertical and horizontal.
        places: int [N, 2], where the first pixel goes.
        out: N canvases; the rest of them stays as it is.
        row: number of the first.
        watch: int64 [2], before each image its row and the time, in nanoseconds of the monotonic clock.
        spent: int64 [2], to which the nanoseconds of decoding and of resizing are added.

    Returns:
        bool [N], those that are not shown, some of which are damaged.
    """
    count, high, wide = out.shape[:3]
    views = np.zeros((count, 16), np.int64)
    for view, image in zip(views, images, strict=True):
        if image:
            view[_IMAGE], view[_SIZE] = address(image), len(image)
    views[:, _AXES] = axes.reshape(count, 12)
    views[:, _OUT] = writable(out) + 3 * (wide * (high * np.arange(count) + places[:, 0]) + places[:, 1])
    views[:, _STRIDE] = 3 * wide
    statuses = np.empty(count, np.int32)
    library.show_views(writable(views), count, row, writable(statuses), writable(watch), writable(spent))
    return statuses != 0


def show_exact(
    image: bytes, axes: np.ndarray, place: np.ndarray, out: np.ndarray, spent: np.ndarray, *, how: str, halve: bool
) -> None:
    """Fill ``out``, uint8 [H, W, 3], with pixels of a whole decoding, resized as RGB.

    Args:
        image: a file of any kind.
        axes: int64 [2, 6], vertical and horizontal.
        place: int [2], where the first pixel goes.
        out: the canvas, contiguous; the rest of it stays as it is.
        spent: int64 [2], to which the nanoseconds of decoding and of resizing are added.
        how: antialias (Pillow's bilinear), or, where all outputs are shown, OpenCV's linear or area.
        halve: whether the decoder halves what is resized to a half or less.

    Raises:
        BadImage: it cannot be decoded, or what is to be resized lies beyond it.
    """
    begun = time.perf_counter_ns()
    both = vertical, horizontal = axes.tolist()
    high, wide = vertical[COUNT], horizontal[COUNT]
    part = out if out.shape[:2] == (high, wide) else scratch("part", high * wide * 3).reshape(high, wide, 3)
    halve = halve and all(axis[LENGTH] >= 2 * axis[RESIZED] for axis in both)
    if halve:
        for axis in both:
            axis[ORIGIN], axis[LENGTH] = axis[ORIGIN] // 2, axis[LENGTH] // 2
    filters = [_filter(axis) for axis in both] if how == "antialias" else []
    spans = [weights.span for weights in filters] or [(0, axis[LENGTH]) for axis in both]
    (top, left), (height, width) = zip(*((axis[ORIGIN] + low, high - low) for axis, (low, high) in zip(both, spans)))
    pixels = decode_window(image, (top, left, height, width), halve=halve)
    decoded = time.perf_counter_ns()
    if how != "antialias":
        cv2.resize(pixels, (wide, high), dst=part, interpolation=_INTERPOLATION[how])
        if horizontal[MIRROR]:
            part[:] = cv2.flip(part, 1)
    elif all(axis[LENGTH] == axis[RESIZED] for axis in both):
        part[:] = pixels[:, ::-1] if horizontal[MIRROR] else pixels
    else:
        down, across = (weights._replace(first=weights.first - low) for weights, (low, _) in zip(filters, spans))
        resample(pixels, down, across, part)
    if part is not out:
        out[place[0] : place[0] + high, place[1] : place[1] + wide] = part
    spent += decoded - begun, time.perf_counter_ns() - decoded


def _filter(axis: list[int]) -> FilterWeights:
    return filter_weights(axis[LENGTH], axis[RESIZED], axis[BEGIN], axis[COUNT], mirror=bool(axis[MIRROR]))
