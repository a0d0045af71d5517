"""What happens to a batch on its device. Images stay uint8; each network normalises for itself.

B samples, H x W pixels.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


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


def mix(
    images: Tensor, labels: Tensor, mixup: float, cutmix: float, random: np.random.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Each image with a part of another one of the batch: blended, or a box of it.

    Zhang et al., mixup, ICLR 2018, arXiv 1710.09412; Yun et al., CutMix, ICCV 2019, arXiv 1905.04899. One share for the
    whole batch, from Beta(alpha, alpha); the partner is the image as far from the other end.

    Args:
        images: uint8 [B, 3, H, W].
        labels: int64 [B].
        mixup: its alpha, 0 for none.
        cutmix: its alpha, 0 for none; where both are given a coin is tossed.
        random: draws.

    Returns:
        Images uint8 [B, 3, H, W], the partners' labels int64 [B], and their share of each image, float32 [B].
    """
    cuts = random.random() < 0.5 if mixup and cutmix else bool(cutmix)
    alpha = cutmix if cuts else mixup
    share = float(random.beta(alpha, alpha))
    others = images.flip(0)
    if cuts:
        (top, bottom), (left, right) = (_side(length, share, random) for length in images.shape[2:])
        images = images.clone(memory_format=torch.channels_last)
        images[:, :, top:bottom, left:right] = others[:, :, top:bottom, left:right]
        share = (bottom - top) * (right - left) / images[0, 0].numel()
    else:
        images = images.float().lerp_(others.float(), share).round_().to(torch.uint8)
    return images, labels.flip(0), torch.full((len(labels),), share, device=labels.device)


def _side(length: int, share: float, random: np.random.Generator) -> tuple[int, int]:
    """Where a box with the square root of ``share`` of a side begins and ends, cut off at the image's edges."""
    center, half = random.random() * length, share**0.5 * length / 2
    return max(0, round(center - half)), min(length, round(center + half))


def _gray(pixels: Tensor) -> Tensor:
    """Luma of ITU-R BT.601, the gray of PIL and torchvision; [B, 3, H, W] -> [B, 1, H, W]."""
    red, green, blue = pixels.split(1, dim=1)
    return 0.299 * red + 0.587 * green + 0.114 * blue
