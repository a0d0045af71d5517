"""Strong views: RandAugment and cutout of a batch on its device, every image by operations of its own.

B samples, H x W pixels; everything is uint8 [B, 3, H, W].
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as tv

from dataset.feed.augment import on

_OPERATIONS = 2  # one after the other
_LARGEST_CUT = 0.5  # of a side
_CUT_COLOR = (125, 123, 114)


class _Operation(NamedTuple):
    """Takes images [B, 3, H, W] and strengths float32 [B], which are drawn evenly from [low, high]."""

    apply: Callable[[Tensor, Tensor], Tensor]
    low: float = 0.0
    high: float = 1.0


def strong_views(images: Tensor, draws: np.ndarray) -> Tensor:
    """A strongly distorted copy of each image.

    Two of RandAugment's operations (Cubuk et al., arXiv 1909.13719) of a strength drawn evenly, then a square of up to
    half a side is filled (DeVries and Taylor, arXiv 1708.04552), in the ranges of FixMatch (Sohn et al., arXiv
    2001.07685), as in the code of MLKD and CRLD, where the crop is another one too.

    Args:
        images: uint8 [B, 3, H, W].
        draws: uniform [B, 7]: two operations, their strengths, size of the square, its place down and across.

    Returns:
        uint8 [B, 3, H, W].
    """
    kinds = (draws[:, :_OPERATIONS] * len(_ALL)).astype(np.int64)
    strengths, cuts = draws[:, _OPERATIONS : 2 * _OPERATIONS], draws[:, 2 * _OPERATIONS :]
    for kind, strength in zip(kinds.T, strengths.T):
        images = _distorted(images, kind, strength)
    return _cut(images, on(images.device, cuts.T.astype(np.float32)))


def _distorted(images: Tensor, kinds: np.ndarray, strengths: np.ndarray) -> Tensor:
    """kinds: [B], places in `_ALL`; strengths: [B], in [0, 1)."""
    order = np.argsort(kinds, kind="stable")
    low, high = np.array([(operation.low, operation.high) for operation in _ALL])[kinds[order]].T
    drawn = low + (high - low) * strengths[order]
    counts = np.bincount(kinds, minlength=len(_ALL)).tolist()
    places = on(images.device, order).split(counts)
    shares = on(images.device, drawn.astype(np.float32)).split(counts)
    result = images.clone()
    for operation, index, share in zip(_ALL, places, shares):
        if len(index):
            result[index] = operation.apply(images[index], share)
    return result


def _cut(images: Tensor, drawn: Tensor) -> Tensor:
    """drawn: [3, B] in [0, 1): side of the square, and its centre down and across."""
    height, width = images.shape[2:]
    half = _LARGEST_CUT * drawn[0] * min(height, width) / 2  # [B]
    down, across = (
        (torch.arange(length, device=images.device) + 0.5 - center[:, None] * length).abs()
        < half[:, None]  # [B, length]
        for length, center in ((height, drawn[1]), (width, drawn[2]))
    )
    color = on(images.device, np.array(_CUT_COLOR, np.uint8)).view(3, 1, 1)
    return torch.where((down[:, :, None] & across[:, None, :])[:, None], color, images)


def _blended(without: Callable[[Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    """What is left of a property: 0 gives the images ``without`` it, 1 the images."""

    def apply(images: Tensor, strengths: Tensor) -> Tensor:
        return without(images).float().lerp(images.float(), _each(strengths)).round_().to(torch.uint8)

    return apply


def _moved(matrix: Callable[[Tensor], tuple[Tensor | float, ...]]) -> Callable[[Tensor, Tensor], Tensor]:
    """Pixels read elsewhere, black outside.

    Args:
        matrix: strengths [B] -> six numbers or [B], which take places (across, down, 1) of the result to those in the
            image, both from -1 to 1.
    """

    def apply(images: Tensor, strengths: Tensor) -> Tensor:
        rows = [x if isinstance(x, Tensor) else torch.full_like(strengths, x) for x in matrix(strengths)]
        grid = F.affine_grid(torch.stack(rows, 1).view(-1, 2, 3), list(images.shape), align_corners=False)
        return F.grid_sample(images.float(), grid, mode="nearest", align_corners=False).to(torch.uint8)

    return apply


def _smooth(images: Tensor) -> Tensor:
    """Pillow's SMOOTH, (sum of 3 x 3 pixels + 4 times the one in the middle) / 13; the frame stays as it is.

    `tv.adjust_sharpness` makes its kernel on the host, and every such copy waits for the GPU.
    """
    smooth = images.float()
    inner = smooth[:, :, 1:-1, 1:-1]
    inner.copy_(((9 * F.avg_pool2d(smooth, 3, stride=1) + 4 * inner) / 13).round_())
    return smooth


def _posterized(images: Tensor, bits: Tensor) -> Tensor:
    return images & _each(256 - 2 ** (8 - bits.floor())).to(torch.uint8)


def _solarized(images: Tensor, thresholds: Tensor) -> Tensor:
    return torch.where(images >= _each(thresholds), 255 - images, images)


def _each(values: Tensor) -> Tensor:
    """[B] -> [B, 1, 1, 1]."""
    return values[:, None, None, None]


def _rotation(degrees: Tensor) -> tuple[Tensor | float, ...]:
    cosine, sine = degrees.deg2rad().cos(), degrees.deg2rad().sin()
    return cosine, -sine, 0.0, sine, cosine, 0.0


_ALL = (
    _Operation(lambda images, _: images),
    _Operation(lambda images, _: tv.autocontrast(images)),
    _Operation(lambda images, _: tv.equalize(images)),
    _Operation(_blended(torch.zeros_like), 0.05, 0.95),  # brightness
    _Operation(_blended(lambda images: tv.adjust_saturation(images, 0)), 0.05, 0.95),
    _Operation(_blended(lambda images: tv.adjust_contrast(images, 0)), 0.05, 0.95),
    _Operation(_blended(_smooth), 0.05, 0.95),
    _Operation(_posterized, 4.0, 8.0),
    _Operation(_solarized, 0.0, 256.0),
    _Operation(_moved(_rotation), -30.0, 30.0),
    _Operation(_moved(lambda share: (1.0, share, share, 0.0, 1.0, 0.0)), -0.3, 0.3),  # shear across: the top stays
    _Operation(_moved(lambda share: (1.0, 0.0, 0.0, share, 1.0, share)), -0.3, 0.3),  # shear down: the left side stays
    _Operation(_moved(lambda share: (1.0, 0.0, 2 * share, 0.0, 1.0, 0.0)), -0.3, 0.3),  # across, of the width
    _Operation(_moved(lambda share: (1.0, 0.0, 0.0, 0.0, 1.0, 2 * share)), -0.3, 0.3),  # down, of the height
)
