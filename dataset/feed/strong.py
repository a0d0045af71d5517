"""RandAugment, and strong views, of a batch on its device, every image by operations of its own.

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
_UDA_LARGEST_CUT = 20  # pixels
_GRAY = 128


class _Operation(NamedTuple):
    """Takes images [B, 3, H, W] and strengths float32 [B], which are drawn evenly from [low, high].

    Where ``both`` the strength is the distance from 0, or for a factor from 1, to either side.
    """

    apply: Callable[[Tensor, Tensor], Tensor]
    low: float = 0.0
    high: float = 1.0
    both: bool = False


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
        images = _distorted(images, kind, strength, _ALL)
    return _cut(images, on(images.device, cuts.T.astype(np.float32)))


def randaugment(images: Tensor, draws: np.ndarray) -> Tensor:
    """Each image by two of fifteen operations, one after the other, each with an even chance.

    RandAugment (Cubuk et al., arXiv 1909.13719) in the ranges of UDA (Xie et al., arXiv 1904.12848), strengths in nine
    steps, as the codes of L2D and CPSD have it of a package; what comes into view is gray.

    Args:
        images: uint8 [B, 3, H, W].
        draws: uniform [B, 12]: of two operations the chances, the kinds, the strengths, the sides, and where a square
            lies, down and across.

    Returns:
        uint8 [B, 3, H, W].
    """
    chances, kinds, steps, sides, down, across = draws.reshape(len(draws), 6, _OPERATIONS).transpose(1, 2, 0)  # [2, B]
    kinds = np.where(chances < 0.5, 1 + (kinds * (len(_UDA) - 1)).astype(np.int64), 0)
    strengths = (1 + np.floor(9 * steps)) / 9
    for number, (kind, strength) in enumerate(zip(kinds, strengths)):
        images = _distorted(images, kind, strength, _UDA, np.where(sides[number] < 0.5, -1.0, 1.0))
        if (cut := kind == _UDA_CUT).any():
            square = np.stack([_UDA_LARGEST_CUT * strength * cut, down[number], across[number]])
            images = _filled(images, *on(images.device, square.astype(np.float32)))
    return images


def _distorted(
    images: Tensor,
    kinds: np.ndarray,
    strengths: np.ndarray,
    operations: tuple[_Operation, ...],
    sides: np.ndarray | float = 1.0,
) -> Tensor:
    """kinds: [B], places in ``operations``; strengths: [B], in [0, 1]; sides: [B], 1 or -1."""
    order = np.argsort(kinds, kind="stable")
    low, high, both = np.array([(one.low, one.high, one.both) for one in operations])[kinds].T
    drawn = ((low + (high - low) * strengths) * np.where(both > 0, sides, 1.0))[order]
    counts = np.bincount(kinds, minlength=len(operations)).tolist()
    places = on(images.device, order).split(counts)
    shares = on(images.device, drawn.astype(np.float32)).split(counts)
    result = images.clone()
    for operation, index, share in zip(operations, places, shares):
        if len(index):
            result[index] = operation.apply(images[index], share)
    return result


def _cut(images: Tensor, drawn: Tensor) -> Tensor:
    """drawn: [3, B] in [0, 1): side of the square, and its centre down and across."""
    return _filled(images, _LARGEST_CUT * drawn[0] * min(images.shape[2:]), drawn[1], drawn[2])


def _filled(images: Tensor, sides: Tensor, down: Tensor, across: Tensor) -> Tensor:
    """Squares of ``sides`` [B] pixels with their centres at shares ``down`` and ``across`` [B] of the image."""
    down, across = (
        (torch.arange(length, device=images.device) + 0.5 - center[:, None] * length).abs()
        < sides[:, None] / 2  # [B, length]
        for length, center in zip(images.shape[2:], (down, across))
    )
    color = on(images.device, np.array(_CUT_COLOR, np.uint8)).view(3, 1, 1)
    return torch.where((down[:, :, None] & across[:, None, :])[:, None], color, images)


def _blended(without: Callable[[Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    """What is left of a property: 0 gives the images ``without`` it, 1 the images, and more than 1 more of it."""

    def apply(images: Tensor, strengths: Tensor) -> Tensor:
        blended = without(images).float().lerp(images.float(), each(strengths))
        return blended.round_().clamp_(0, 255).to(torch.uint8)

    return apply


def _changed(without: Callable[[Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    """As `_blended`, by how far the factor is from 1."""
    blended = _blended(without)
    return lambda images, changes: blended(images, 1 + changes)


def _moved(
    matrix: Callable[[Tensor], tuple[Tensor | float, ...]], mode: str = "nearest", outside: int = 0
) -> Callable[[Tensor, Tensor], Tensor]:
    """Pixels read elsewhere.

    Args:
        matrix: strengths [B] -> six numbers or [B], which take places (across, down, 1) of the result to those in the
            image, both from -1 to 1.
        mode: of reading between pixels.
        outside: the gray of what lies outside.
    """

    def apply(images: Tensor, strengths: Tensor) -> Tensor:
        rows = [x if isinstance(x, Tensor) else torch.full_like(strengths, x) for x in matrix(strengths)]
        grid = F.affine_grid(torch.stack(rows, 1).view(-1, 2, 3), list(images.shape), align_corners=False)
        read = F.grid_sample(images.float() - outside, grid, mode=mode, align_corners=False) + outside
        return read.round_().clamp_(0, 255).to(torch.uint8)

    return apply


def smooth(images: Tensor) -> Tensor:
    """Pillow's SMOOTH, (sum of 3 x 3 pixels + 4 times the one in the middle) / 13; the frame stays as it is.

    `tv.adjust_sharpness` makes its kernel on the host, and every such copy waits for the GPU.
    """
    pixels = images.float()
    inner = pixels[:, :, 1:-1, 1:-1]
    inner.copy_(((9 * F.avg_pool2d(pixels, 3, stride=1) + 4 * inner) / 13).round_())
    return pixels


def posterized(images: Tensor, bits: Tensor) -> Tensor:
    """The high ``bits``, [B], of each pixel."""
    return images & each(256 - 2 ** (8 - bits.floor())).to(torch.uint8)


def solarized(images: Tensor, thresholds: Tensor) -> Tensor:
    """Pixels from ``thresholds``, [B], on are inverted."""
    return torch.where(images >= each(thresholds), 255 - images, images)


def each(values: Tensor) -> Tensor:
    """[B] -> [B, 1, 1, 1]."""
    return values[:, None, None, None]


def _rotation(degrees: Tensor) -> tuple[Tensor | float, ...]:
    cosine, sine = degrees.deg2rad().cos(), degrees.deg2rad().sin()
    return cosine, -sine, 0.0, sine, cosine, 0.0


def _shear_across(share: Tensor) -> tuple[Tensor | float, ...]:
    return 1.0, share, share, 0.0, 1.0, 0.0


def _shear_down(share: Tensor) -> tuple[Tensor | float, ...]:
    return 1.0, 0.0, 0.0, share, 1.0, share


def _shift_across(share: Tensor) -> tuple[Tensor | float, ...]:
    return 1.0, 0.0, 2 * share, 0.0, 1.0, 0.0


def _shift_down(share: Tensor) -> tuple[Tensor | float, ...]:
    return 1.0, 0.0, 0.0, 0.0, 1.0, 2 * share


def _without_color(images: Tensor) -> Tensor:
    return tv.adjust_saturation(images, 0)


def _without_contrast(images: Tensor) -> Tensor:
    return tv.adjust_contrast(images, 0)


_ALL = (
    _Operation(lambda images, _: images),
    _Operation(lambda images, _: tv.autocontrast(images)),
    _Operation(lambda images, _: tv.equalize(images)),
    _Operation(_blended(torch.zeros_like), 0.05, 0.95),  # brightness
    _Operation(_blended(_without_color), 0.05, 0.95),
    _Operation(_blended(_without_contrast), 0.05, 0.95),
    _Operation(_blended(smooth), 0.05, 0.95),
    _Operation(posterized, 4.0, 8.0),
    _Operation(solarized, 0.0, 256.0),
    _Operation(_moved(_rotation), -30.0, 30.0),
    _Operation(_moved(_shear_across), -0.3, 0.3),  # shear across: the top stays
    _Operation(_moved(_shear_down), -0.3, 0.3),  # shear down: the left side stays
    _Operation(_moved(_shift_across), -0.3, 0.3),  # across, of the width
    _Operation(_moved(_shift_down), -0.3, 0.3),  # down, of the height
)
_UDA = (  # the first is none of the fifteen
    _Operation(lambda images, _: images),
    _Operation(lambda images, _: images),  # a square, which is filled apart
    _Operation(lambda images, _: 255 - images),
    _Operation(lambda images, _: tv.autocontrast(images)),
    _Operation(lambda images, _: tv.equalize(images)),
    _Operation(_changed(torch.zeros_like), 0.0, 0.9, both=True),  # brightness
    _Operation(_changed(_without_color), 0.0, 0.9, both=True),
    _Operation(_changed(_without_contrast), 0.0, 0.9, both=True),
    _Operation(_changed(smooth), 0.0, 0.9, both=True),
    _Operation(lambda images, bits: posterized(images, bits.round()), 8.0, 4.0),
    _Operation(solarized, 256.0, 0.0),
    _Operation(_moved(_rotation, outside=_GRAY), 0.0, 30.0),
    _Operation(_moved(_shear_across, "bicubic", _GRAY), 0.0, 0.3, both=True),
    _Operation(_moved(_shear_down, "bicubic", _GRAY), 0.0, 0.3, both=True),
    _Operation(_moved(_shift_across, outside=_GRAY), 0.0, 150 / 331, both=True),
    _Operation(_moved(_shift_down, outside=_GRAY), 0.0, 150 / 331, both=True),
)
_UDA_CUT = 1
