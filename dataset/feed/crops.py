"""What is drawn for each sample, as a pure function of (seed, epoch, sample index), for a whole batch at a time.

B samples; windows are (top, left, height, width) in pixels of the stored image. Of the numbers that a sample draws each
augmentation has fixed columns, so that turning one off leaves the others' draws alone: 0 mirrors, 1 to 3 jitter
colours, 4 to 43 place the window, then come those that are used on the device. Copies of a repeated sample have numbers
of their own.
"""

from __future__ import annotations

import numpy as np

from dataset.feed.targets import Window
from dataset.jpeg.images import resized_shape
from dataset.jpeg.views import BEGIN, COUNT, LENGTH, ORIGIN, RESIZED

WINDOW = 44  # numbers that a decoding process draws
STRONG, MIX, CUTOUT, RANDAUGMENT = slice(44, 51), slice(51, 55), slice(55, 60), slice(60, 72)  # on the device
AUTO_AUGMENT, ERASE = slice(72, 82), slice(82, 126)  # likewise


def uniform(seed: int, epoch: int, index: np.ndarray, draws: int) -> np.ndarray:
    """Uniform numbers in [0, 1) that depend on nothing but the arguments; float64 [B, draws].

    A counter-based generator: the SplitMix64 finaliser (Steele et al., OOPSLA 2014) applied to seed, epoch, sample
    and draw in turn.
    """
    with np.errstate(over="ignore"):
        stream = _mix(_mix(np.uint64(seed)) + np.uint64(epoch))
        sample = _mix(stream + index.astype(np.uint64))  # [B]
        bits = _mix(sample[:, None] + np.arange(draws, dtype=np.uint64))  # [B, draws]
    return (bits >> np.uint64(11)) * 2.0**-53


def center_window(size: tuple[int, int], resize_side: int, crop: int) -> Window:
    """What torchvision's Resize(``resize_side``) and CenterCrop(``crop``) show of an image of this height and width."""
    spans = []
    for length, resized in zip(size, resized_shape(*size, resize_side)):
        start = round((resized - crop) / 2.0) if resized >= crop else -((crop - resized) // 2)
        spans.append((start * length / resized, crop * length / resized))
    (top, height), (left, width) = spans
    return Window(top, left, height, width)


def center_axes(sizes: np.ndarray, resize_side: int, crop: int) -> tuple[np.ndarray, np.ndarray]:
    """As `center_window`, of images of ``sizes``, int [N, 2], height and width.

    Returns:
        axes: int64 [N, 2, 6], as `dataset.jpeg.views` has them.
        places: int64 [N, 2], where the first pixel goes in the square; black surrounds an image that is smaller.
    """
    sizes = sizes.astype(np.int64)
    resized = np.maximum(1, sizes * resize_side // sizes.min(axis=1, keepdims=True))
    count = np.minimum(crop, resized)
    begin = np.rint((resized - count) / 2.0).astype(np.int64)
    zeros = np.zeros_like(sizes)
    return np.stack([zeros, sizes, resized, begin, count, zeros], axis=2), (crop - count) // 2


def window_axes(windows: np.ndarray, crop: int) -> tuple[np.ndarray, np.ndarray]:
    """Windows, int64 [N, 4], resized to a square: axes and places as `center_axes`."""
    axes = np.zeros((len(windows), 2, 6), np.int64)
    axes[:, :, ORIGIN], axes[:, :, LENGTH] = windows[:, :2], windows[:, 2:]
    axes[:, :, RESIZED] = axes[:, :, COUNT] = crop
    return axes, np.zeros((len(windows), 2), np.int64)


def short_side_axes(
    sizes: np.ndarray, sides: np.ndarray | int, longest: int, most: int = 0, places: np.ndarray | None = None
) -> np.ndarray:
    """Images in their shapes, resized as torchvision's detectors do it, or crops of these; axes as `center_axes`.

    Args:
        sizes: int [N, 2], height and width.
        sides: int [N], what the short side becomes, or of all, pixels.
        longest: most pixels of the long side; where it would have more, it has these, and the short side fewer.
        most: most pixels a side of a crop; 0 for none.
        places: uniform [N, 2], of the crop among all that there are.
    """
    sizes = sizes.astype(np.int64)
    short, long = sizes.min(axis=1, keepdims=True), sizes.max(axis=1, keepdims=True)
    sides = np.broadcast_to(np.asarray(sides, np.int64), len(sizes))[:, None]
    fits = long * sides <= longest * short
    resized = np.maximum(1, np.where(fits, sizes * sides // short, sizes * longest // long))  # [N, 2]
    count = np.minimum(resized, most) if most else resized
    begin = np.zeros_like(count)
    if places is not None:
        begin = np.floor(places * (resized - count + 1)).astype(np.int64)
    zeros = np.zeros_like(sizes)
    return np.stack([zeros, sizes, resized, begin, count, zeros], axis=2)


def shown_windows(axes: np.ndarray) -> list[Window]:
    """What axes [N, 2, 6] show, in pixels of the images."""
    scale = axes[:, :, LENGTH] / axes[:, :, RESIZED]  # [N, 2]
    corners, lengths = axes[:, :, ORIGIN] + axes[:, :, BEGIN] * scale, axes[:, :, COUNT] * scale
    return [Window(*row) for row in np.concatenate([corners, lengths], axis=1).tolist()]


def whole(sizes: np.ndarray) -> np.ndarray:
    """Windows that show all of each image; sizes: int [B, 2], height and width -> int64 [B, 4]."""
    return np.concatenate([np.zeros_like(sizes), sizes], axis=1).astype(np.int64)


def random_resized_crop(
    numbers: np.ndarray, sizes: np.ndarray, scale: tuple[float, float], ratio: tuple[float, float]
) -> np.ndarray:
    """Inception-style windows, distributed as torchvision's RandomResizedCrop.

    Args:
        numbers: uniform [B, 40].
        sizes: height and width of each image, [B, 2].
        scale: share of the image's area, lowest and highest.
        ratio: width over height, lowest and highest; log-uniform.

    Returns:
        int64 [B, 4].
    """
    height, width = (sizes[:, side, None].astype(np.float64) for side in (0, 1))  # [B, 1]
    area, aspect, vertical, horizontal = np.split(numbers, 4, axis=1)  # [B, 10] each
    area = height * width * (scale[0] + (scale[1] - scale[0]) * area)
    aspect = np.exp(np.log(ratio[0]) + (np.log(ratio[1]) - np.log(ratio[0])) * aspect)
    high, wide = np.rint(np.sqrt(area / aspect)), np.rint(np.sqrt(area * aspect))
    fits = (high > 0) & (high <= height) & (wide > 0) & (wide <= width)

    # None fits: the whole image, cut at the centre to the nearest allowed ratio.
    center_wide = np.clip(np.rint(height * ratio[1]), 1, width)
    center_high = np.clip(np.rint(width / ratio[0]), 1, height)
    chosen = fits.argmax(axis=1)[:, None]  # the first that fits
    found = fits.any(axis=1)[:, None]

    def pick(drawn: np.ndarray, otherwise: np.ndarray) -> np.ndarray:  # [B, 1]
        return np.where(found, np.take_along_axis(drawn, chosen, axis=1), otherwise)

    high, wide = pick(high, center_high), pick(wide, center_wide)
    top = np.where(found, np.floor(pick(vertical, vertical[:, :1]) * (height - high + 1)), (height - high) // 2)
    left = np.where(found, np.floor(pick(horizontal, horizontal[:, :1]) * (width - wide + 1)), (width - wide) // 2)
    return np.concatenate([top, left, high, wide], axis=1).astype(np.int64)


def random_scale_crop(numbers: np.ndarray, sizes: np.ndarray, sides: tuple[int, int], crop: int) -> np.ndarray:
    """Square windows that, resized to ``crop``, equal a resize of the short side to a random length and a random crop.

    The `rand_scale` augmentation of WSLD's ImageNet recipe: short side 256 to 480, crop 224.

    Args:
        numbers: uniform [B, 3].
        sizes: height and width of each image, [B, 2].
        sides: the shortest and longest length drawn for the short side, pixels.
        crop: side of the output, pixels.

    Returns:
        int64 [B, 4].
    """
    height, width = (sizes[:, side].astype(np.float64) for side in (0, 1))  # [B]
    short = np.minimum(height, width)
    drawn = np.rint(sides[0] + (sides[1] - sides[0]) * numbers[:, 0])
    side = np.clip(np.rint(short * crop / drawn), 1, short)
    top, left = (np.floor(numbers[:, axis] * (length - side + 1)) for axis, length in ((1, height), (2, width)))
    return np.stack([top, left, side, side], axis=1).astype(np.int64)


def padded_crop(numbers: np.ndarray, sizes: np.ndarray, pad: int, crop: int) -> np.ndarray:
    """Corners of square windows in images with a frame, distributed as torchvision's RandomCrop(crop, padding=pad).

    Args:
        numbers: uniform [B, 2].
        sizes: height and width of each image, [B, 2].
        pad: width of the frame, pixels.
        crop: side of the windows, pixels.

    Returns:
        int64 [B, 2], top and left in the image; below zero in the frame. Where the window is larger than image and
        frame, both are at their centre.
    """
    space = sizes + 2 * pad - crop  # [B, 2]
    return np.where(space >= 0, np.floor(numbers * (space + 1)), space // 2).astype(np.int64) - pad


def jitter_factors(numbers: np.ndarray, strength: float) -> np.ndarray:
    """Factors uniform in [max(0, 1 - strength), 1 + strength]; float32, of the shape of ``numbers``."""
    low = max(0.0, 1.0 - strength)
    return (low + (1.0 + strength - low) * numbers).astype(np.float32)


def _mix(bits: np.ndarray | np.uint64) -> np.ndarray:
    bits = np.asarray(bits) + np.uint64(0x9E3779B97F4A7C15)
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))
