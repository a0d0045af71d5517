"""What happens to a batch on its device. Images stay uint8; each network normalises for itself.

B samples, H x W pixels.
"""

from __future__ import annotations

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


def _gray(pixels: Tensor) -> Tensor:
    """Luma of ITU-R BT.601, the gray of PIL and torchvision; [B, 3, H, W] -> [B, 1, H, W]."""
    red, green, blue = pixels.split(1, dim=1)
    return 0.299 * red + 0.587 * green + 0.114 * blue
