"""What happens to a batch on its device. Images stay uint8; each network normalises for itself.

B samples, H x W pixels.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from scipy.special import betaincinv, ndtri
from torch import Tensor

MEAN, _DEVIATION = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)  # of ImageNet's pixels, red, green, blue
_ERASED, _SHAPES = (0.02, 0.33), (0.3, 3.3)  # share of the image's area, height over width


def color_jitter(images: Tensor, factors: Tensor) -> Tensor:
    """Brightness, then contrast, then saturation, each as torchvision's ColorJitter blends it.

    Args:
        images: uint8 [B, 3, H, W].
        factors: float32 [B, 3]; 1 leaves the image as it is.

    Returns:
        uint8 [B, 3, H, W].
    """
    brightness, contrast, saturation = (factor[:, None, None, None] for factor in factors.unbind(1))  # [B, 1, 1, 1]
    pixels = (images * brightness).clamp_(0, 255)
    mean = _gray(pixels).mean(dim=(1, 2, 3), keepdim=True)  # [B, 1, 1, 1]
    pixels = pixels.lerp_(mean, 1 - contrast).clamp_(0, 255)
    pixels = pixels.lerp(_gray(pixels), 1 - saturation).clamp_(0, 255)
    return pixels.round_().to(torch.uint8)


def mix(images: Tensor, draws: np.ndarray, mixup: float, cutmix: float) -> tuple[Tensor, Tensor]:
    """Each image with a part of its neighbour, blended or a box of it; the first is mixed with the second and so on.

    Zhang et al., mixup, ICLR 2018, arXiv 1710.09412; Yun et al., CutMix, ICCV 2019, arXiv 1905.04899; there with one
    share for the whole batch. Here every image has its own, from Beta(alpha, alpha).

    Args:
        images: uint8 [B, 3, H, W], B even.
        draws: uniform [B, 4]: which of the two, the share, the centre of the box down and across.
        mixup: its alpha, 0 for none.
        cutmix: its alpha, 0 for none; where both are given each image has one of them, as likely as the other.

    Returns:
        Images uint8 [B, 3, H, W], and the neighbours' share of each, float32 [B].
    """
    coin, drawn, down, across = draws.T
    cuts = (coin < 0.5) & bool(cutmix) if mixup else np.ones(len(draws), bool)
    alpha = np.where(cuts, cutmix, mixup)
    share = betaincinv(alpha, alpha, drawn)
    (top, bottom), (left, right) = (
        _side(length, share, center) for length, center in zip(images.shape[2:], (down, across))
    )
    share = np.where(cuts, (bottom - top) * (right - left) / images[0, 0].numel(), share)
    edges = np.stack([top, bottom, left, right]) * cuts  # without a box where the image is blended
    shares, blend, *box = on(images.device, np.stack([share, share * ~cuts, *edges]).astype(np.float32))  # each [B]
    others = neighbours(images)
    inside = _boxes(images, torch.stack(box))
    blended = images.float().lerp_(others.float(), blend[:, None, None, None]).round_().to(torch.uint8)
    mixed = torch.where(inside[:, None], others, blended)
    return mixed.contiguous(memory_format=torch.channels_last), shares


def cutout(images: Tensor, draws: np.ndarray, share: float) -> Tensor:
    """A square of one colour in each image, its centre anywhere in it.

    DeVries and Taylor, arXiv 1708.04552; with a random colour, as in the code of L2D and CPSD.

    Args:
        images: uint8 [B, 3, H, W].
        draws: uniform [B, 5]: the centre down and across, red, green, blue.
        share: side of the square over that of the image.
    """
    (top, bottom), (left, right) = (
        _side(length, np.float64(share) ** 2, center) for length, center in zip(images.shape[2:], draws.T[:2])
    )
    inside = _boxes(images, on(images.device, np.stack([top, bottom, left, right]).astype(np.float32)))
    colors = on(images.device, (256 * draws[:, 2:]).astype(np.uint8))[:, :, None, None]  # [B, 3, 1, 1]
    return torch.where(inside[:, None], colors, images).contiguous(memory_format=torch.channels_last)


def erase(images: Tensor, draws: np.ndarray, chance: float, mode: str) -> Tensor:
    """A box of some of the images filled.

    Zhong et al., Random Erasing, AAAI 2020, arXiv 1708.04896; areas and shapes as torchvision's RandomErasing draws
    them, what fills them as timm's `remode` says. Both erase normalised images: their zero is ImageNet's mean colour.

    Args:
        images: uint8 [B, 3, H, W].
        draws: uniform [B, 44]: whether, ten areas, shapes and places down and across of which the first that fits is
            taken, and the colour.
        chance: share of the images.
        mode: ``const``, ImageNet's mean colour; ``rand``, one colour, drawn with ImageNet's mean and standard
            deviation; ``pixel``, each pixel of its own.
    """
    places = np.flatnonzero(draws[:, 0] < chance)
    if not len(places):
        return images
    height, width = images.shape[2:]
    edges = _erased(draws[places, 1:41], height, width)
    colors = draws[places, 41:44]  # [n, 3]
    rows = on(images.device, places)
    inside = _boxes(images, on(images.device, edges.astype(np.float32)))
    if mode == "pixel":
        filling = _noise(height, width, images.device)
        corner = on(images.device, (colors[:, :2] * (height, width)).astype(np.int64))  # [n, 2]
        down, across = (
            corner[:, axis, None] + torch.arange(side, device=images.device)
            for axis, side in enumerate((height, width))
        )
        filling = filling[:, down[:, :, None], across[:, None, :]].transpose(0, 1)  # [n, 3, H, W]
    else:
        normal = ndtri(colors) if mode == "rand" else np.zeros_like(colors)
        filling = on(images.device, _as_pixels(normal))[:, :, None, None]
    result = images.clone()
    result[rows] = torch.where(inside[:, None], filling, images[rows])
    return result


def _erased(draws: np.ndarray, height: int, width: int) -> np.ndarray:
    """Boxes to erase, from uniform [n, 40]: int64 [4, n], top, bottom, left, right; empty where none fits."""
    area, shape, down, across = np.split(draws, 4, axis=1)  # [n, 10] each
    area = height * width * (_ERASED[0] + (_ERASED[1] - _ERASED[0]) * area)
    low, high = np.log(_SHAPES)
    shape = np.exp(low + (high - low) * shape)
    tall, wide = np.rint(np.sqrt(area * shape)), np.rint(np.sqrt(area / shape))
    fits = (tall < height) & (wide < width)
    chosen = np.arange(len(draws)), fits.argmax(axis=1)
    tall, wide = (np.where(fits.any(axis=1), sides[chosen], 0) for sides in (tall, wide))  # [n]
    top, left = np.floor(down[chosen] * (height - tall + 1)), np.floor(across[chosen] * (width - wide + 1))
    return np.stack([top, top + tall, left, left + wide]).astype(np.int64)


@cache
def _noise(height: int, width: int, device: torch.device) -> Tensor:
    """Pixels of colours of their own, uint8 [3, 2 H, 2 W], always the same; boxes show parts of it."""
    normal = np.random.Generator(np.random.Philox(0)).standard_normal((2 * height, 2 * width, 3))
    return torch.from_numpy(_as_pixels(normal)).permute(2, 0, 1).contiguous().to(device)


def _as_pixels(normal: np.ndarray) -> np.ndarray:
    """Colours, uint8 [..., 3], of standard normal numbers, by ImageNet's mean and standard deviation."""
    return np.rint(np.array(MEAN) + np.array(_DEVIATION) * normal).clip(0, 255).astype(np.uint8)


def _boxes(images: Tensor, edges: Tensor) -> Tensor:
    """Which pixels lie in a box of each image; edges: [4, B], top, bottom, left, right -> bool [B, H, W]."""
    top, bottom, left, right = edges[:, :, None]
    rows, columns = (torch.arange(length, device=images.device) for length in images.shape[2:])
    down, across = (rows >= top) & (rows < bottom), (columns >= left) & (columns < right)  # [B, H], [B, W]
    return down[:, :, None] & across[:, None, :]


def neighbours(x: Tensor) -> Tensor:
    """What each of [B, ...] is mixed with: the second, the first, the fourth, the third, ..."""
    return x[torch.arange(len(x), device=x.device) ^ 1]


def on(device: torch.device, values: np.ndarray) -> Tensor:
    """Values on a device; a GPU is not waited for."""
    tensor = torch.from_numpy(values)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor


def _side(length: int, share: np.ndarray | np.float64, center: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where boxes with the square root of ``share`` [B] of a side begin and end, cut off at the image's edges."""
    half = np.sqrt(share) * length / 2
    return np.maximum(0, np.rint(center * length - half)), np.minimum(length, np.rint(center * length + half))


def _gray(pixels: Tensor) -> Tensor:
    """Luma of ITU-R BT.601, the gray of PIL and torchvision; [B, 3, H, W] -> [B, 1, H, W]."""
    red, green, blue = pixels.split(1, dim=1)
    return 0.299 * red + 0.587 * green + 0.114 * blue
