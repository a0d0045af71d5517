"""RandAugment and TrivialAugment of a batch on its device, every image by operations of its own.

torchvision's spaces of operations with the values of its kernels for tensors, and the one of timm's recipes. B samples,
H x W pixels; images are uint8 [B, 3, H, W].
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from scipy.special import ndtri
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as tv

from dataset.feed.augment import MEAN, on
from dataset.feed.strong import each, posterized, smooth, solarized

_DRAWS = 5  # of an operation
_BINS = 30  # of torchvision's magnitudes, beside 0
_LEVELS = 10  # timm's highest magnitude
_READ_TWO_WAYS = 5  # of timm's operations, the first ones: bilinear or bicubic

Values = np.ndarray  # float64 [B]
Matrix = Callable[[Values, int, int], list[Values | float]]


class _Operation(NamedTuple):
    """Takes images [B, 3, H, W] and the values that it makes of levels in [0, 1] and sides, -1 or 1."""

    apply: Callable[[Tensor, Values], Tensor]
    value: Callable[[Values, Values], Values] = lambda level, side: level


def auto_augment(images: Tensor, draws: np.ndarray, kind: str, magnitude: float, std: float) -> Tensor:
    """Each image by the operations that are drawn for it, one after the other.

    - ``ra``: torchvision's RandAugment, two of 14 operations at one magnitude (Cubuk et al., arXiv 1909.13719).
    - ``ta_wide``: torchvision's TrivialAugmentWide, one of 14 at any magnitude (Mueller and Hutter, ICCV 2021, arXiv
      2103.10158).
    - ``ra_timm``: timm's `rand-m9-mstd0.5-inc1`, two of 15, each with an even chance, at magnitudes around the one that
      is given. What comes into view has ImageNet's mean colour.

    Args:
        images: uint8 [B, 3, H, W].
        draws: uniform [B, 10]: of each of two operations whether it is done, which one, its magnitude, its side, and
            how pixels are read.
        kind: one of these.
        magnitude: of ``ra``, from 0 to 30; of ``ra_timm``, from 0 to 10.
        std: of the magnitudes of ``ra_timm``.

    Returns:
        uint8 [B, 3, H, W].
    """
    operations = _SPACES[kind]
    for column in range(0, _DRAWS if kind == "ta_wide" else 2 * _DRAWS, _DRAWS):
        chance, which, size, side, reading = draws[:, column : column + _DRAWS].T
        if kind == "ra_timm":
            level = np.clip(magnitude + std * ndtri(size), 0, _LEVELS) / _LEVELS
            numbers = (which * (len(operations) - _READ_TWO_WAYS)).astype(np.int64)
            bicubic = (numbers < _READ_TWO_WAYS) & (reading < 0.5)
            numbers = np.where(chance < 0.5, np.where(bicubic, numbers + len(operations) - _READ_TWO_WAYS, numbers), -1)
        else:
            level = (
                np.floor((_BINS + 1) * size) / _BINS if kind == "ta_wide" else np.full(len(draws), magnitude / _BINS)
            )
            numbers = (which * len(operations)).astype(np.int64)
        images = _distorted(images, operations, numbers, level, np.where(side < 0.5, -1.0, 1.0))
    return images


def _distorted(
    images: Tensor, operations: tuple[_Operation, ...], numbers: np.ndarray, level: Values, side: Values
) -> Tensor:
    """numbers: int [B], places in ``operations``, or -1 for none."""
    result = images.clone()
    for number, operation in enumerate(operations):
        if len(rows := np.flatnonzero(numbers == number)):
            index = on(images.device, rows)
            result[index] = operation.apply(images[index], operation.value(level[rows], side[rows]))
    return result


def _float(images: Tensor, values: Values) -> Tensor:
    """[B] -> float32 [B, 1, 1, 1] on the images' device."""
    return each(on(images.device, values.astype(np.float32)))


def _identity(images: Tensor, values: Values) -> Tensor:
    return images


def _autocontrast(images: Tensor, values: Values) -> Tensor:
    return tv.autocontrast(images)


def _equalize(images: Tensor, values: Values) -> Tensor:
    return tv.equalize(images)


def _invert(images: Tensor, values: Values) -> Tensor:
    return 255 - images


def _brightness(images: Tensor, factors: Values) -> Tensor:
    return (images * _float(images, factors)).clamp_(0, 255).to(torch.uint8)


def _color(images: Tensor, factors: Values) -> Tensor:
    return _blended(images, tv.rgb_to_grayscale(images).float(), factors)


def _contrast(images: Tensor, factors: Values) -> Tensor:
    return _blended(images, tv.rgb_to_grayscale(images).float().mean((1, 2, 3), keepdim=True), factors)


def _blended(images: Tensor, without: Tensor, factors: Values) -> Tensor:
    """What is left of a property: 0 gives the images ``without`` it, 1 the images, and more than 1 more of it."""
    kept, rest = images * _float(images, factors), _float(images, 1 - factors)
    # The sum is rounded once, as a fused one: where it is a whole number, that says which side of it is cut off.
    return torch.addcmul(kept.double(), without.double(), rest.double()).float().clamp_(0, 255).to(torch.uint8)


def _sharpness(images: Tensor, factors: Values) -> Tensor:
    pixels = images.float()
    return torch.addcmul(pixels, smooth(images) - pixels, _float(images, 1 - factors)).clamp_(0, 255).to(torch.uint8)


def _posterize(images: Tensor, bits: Values) -> Tensor:
    return posterized(images, on(images.device, bits.astype(np.float32)))


def _solarize(images: Tensor, thresholds: Values) -> Tensor:
    return solarized(images, on(images.device, thresholds.astype(np.float32)))


def _solarize_add(images: Tensor, added: Values) -> Tensor:
    raised = (images + _float(images, added)).clamp_(0, 255).to(torch.uint8)
    return torch.where(images < 128, raised, images)


def _moved(images: Tensor, values: Values, matrix: Matrix, mode: str, fill: bool) -> Tensor:
    """Pixels read elsewhere.

    Args:
        images: uint8 [B, 3, H, W].
        values: of ``matrix``.
        matrix: values, H, W -> six numbers or [B], which take places (across, down, 1) of the result to those in the
            image, pixels from its centre.
        mode: of reading between pixels.
        fill: whether what lies outside has ImageNet's mean colour, or is black.
    """
    height, width = images.shape[2:]
    rows = [np.broadcast_to(row, len(values)) for row in matrix(values, height, width)]
    theta = on(images.device, np.stack(rows, 1).astype(np.float32)).view(-1, 2, 3)
    across, down = (
        torch.linspace((1 - side) / 2, (side - 1) / 2, side, device=images.device) for side in (width, height)
    )
    places = torch.stack(
        [across.repeat(height), down.repeat_interleave(width), torch.ones_like(images[0, 0]).flatten()]
    )
    sides = torch.stack([torch.full_like(across[0], width / 2), torch.full_like(across[0], height / 2)])
    grid = places.T.expand(len(theta), -1, -1).bmm(theta.transpose(1, 2) / sides)  # [B, H * W, 2]
    outside = on(images.device, np.array(MEAN if fill else (0, 0, 0), np.float32)).view(3, 1, 1)
    read = F.grid_sample(images - outside, grid.view(-1, height, width, 2), mode=mode, align_corners=False) + outside
    return read.round_().clamp_(0, 255).to(torch.uint8)


def _sheared_across(shares: Values, height: int, width: int) -> list[Values | float]:
    return [1.0, shares, shares * (height / 2), 0.0, 1.0, 0.0]  # the top stays


def _sheared_down(shares: Values, height: int, width: int) -> list[Values | float]:
    return [1.0, 0.0, 0.0, shares, 1.0, shares * (width / 2)]  # the left side stays


def _shifted(
    shifts: Values, height: int, width: int, *, across: bool, shares: bool, whole: bool
) -> list[Values | float]:
    """By pixels, or by ``shares`` of the side; ``whole`` pixels, or parts of them too."""
    pixels = shifts * (width if across else height) if shares else shifts
    if whole:
        pixels = np.trunc(pixels)
    return [1.0, 0.0, -pixels if across else 0.0, 0.0, 1.0, 0.0 if across else -pixels]


def _turned(degrees: Values, height: int, width: int) -> list[Values | float]:
    cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return [cosine, -sine, 0.0, sine, cosine, 0.0]


def _times(most: float) -> Callable[[Values, Values], Values]:
    """Values from 0 to ``most``, to either side."""
    return lambda level, side: most * level * side


def _around_1(most: float) -> Callable[[Values, Values], Values]:
    return lambda level, side: 1 + most * level * side


def _of_torchvision(
    shear: float, shift: float, degrees: float, change: float, bits: int, *, shares: bool
) -> tuple[_Operation, ...]:
    """Its 14 operations, by the largest value of each; shifts by ``shares`` of the side, or by pixels."""

    def moved(matrix: Matrix, most: float) -> _Operation:
        return _Operation(partial(_moved, matrix=matrix, mode="nearest", fill=False), _times(most))

    return (
        _Operation(_identity),
        moved(_sheared_across, shear),
        moved(_sheared_down, shear),
        moved(partial(_shifted, across=True, shares=shares, whole=True), shift),
        moved(partial(_shifted, across=False, shares=shares, whole=True), shift),
        moved(_turned, degrees),
        *(_Operation(apply, _around_1(change)) for apply in (_brightness, _color, _contrast, _sharpness)),
        _Operation(_posterize, lambda level, side: np.rint(8 - bits * level)),
        _Operation(_solarize, lambda level, side: 255 * (1 - level)),
        _Operation(_autocontrast),
        _Operation(_equalize),
    )


def _of_timm() -> tuple[_Operation, ...]:
    """Its 15 operations that grow with the magnitude, those that move pixels once for each way of reading them."""

    def moved(mode: str) -> tuple[_Operation, ...]:
        shifts = [partial(_shifted, across=across, shares=True, whole=False) for across in (True, False)]
        matrices: list[Matrix] = [_sheared_across, _sheared_down, *shifts, _turned]
        return tuple(
            _Operation(partial(_moved, matrix=matrix, mode=mode, fill=True), _times(most))
            for matrix, most in zip(matrices, (0.3, 0.3, 0.45, 0.45, 30.0))
        )

    def factor(level: Values, side: Values) -> Values:
        return np.maximum(0.1, 1 + 0.9 * level * side)

    return (
        *moved("bilinear"),
        *(_Operation(apply) for apply in (_autocontrast, _equalize, _invert)),
        *(_Operation(apply, factor) for apply in (_brightness, _color, _contrast, _sharpness)),
        _Operation(_posterize, lambda level, side: 4 - np.floor(4 * level)),
        _Operation(_solarize, lambda level, side: 256 - np.floor(256 * level)),
        _Operation(_solarize_add, lambda level, side: np.floor(110 * level)),
        *moved("bicubic"),
    )


_SPACES = {
    "ra": _of_torchvision(0.3, 150 / 331, 30.0, 0.9, 4, shares=True),
    "ta_wide": _of_torchvision(0.99, 32.0, 135.0, 0.99, 6, shares=False),
    "ra_timm": _of_timm(),
}
