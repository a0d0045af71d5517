"""What brings maps of two networks together: pooling or interpolation to equal sizes, layers to equal channels.

B samples, C channels, H x W pixels. Stages come as sequences of maps, shallow to deep, those of student and teacher in
pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

Maps = Sequence[Tensor]


def same_size(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Two maps [B, C, H, W], the larger average-pooled to the size of the smaller."""
    if x.shape[2] > y.shape[2]:
        return pooled_to(x, y), y
    return x, (pooled_to(y, x) if y.shape[2] > x.shape[2] else y)


def pooled_to(x: Tensor, y: Tensor) -> Tensor:
    """x average-pooled to the height and width of y; [B, C, H, W], [B, D, H', W'] -> [B, C, H', W']."""
    return F.adaptive_avg_pool2d(x, (y.shape[2], y.shape[3]))


def resized(x: Tensor, y: Tensor) -> Tensor:
    """x with the height and width of y, by bilinear interpolation; [B, C, H, W], [B, D, H', W'] -> [B, C, H', W']."""
    if x.shape[2:] == y.shape[2:]:
        return x
    return F.interpolate(x, (y.shape[2], y.shape[3]), mode="bilinear", align_corners=False)


def normalised(conv: nn.Conv2d | nn.ConvTranspose2d, *behind: nn.Module) -> nn.Sequential:
    """A convolution, batch norm, and what comes ``behind``."""
    return nn.Sequential(conv, nn.BatchNorm2d(conv.out_channels), *behind)


def pointwise(channels_in: int, channels: int, *behind: nn.Module) -> nn.Sequential:
    """A 1 x 1 convolution, batch norm, and what comes ``behind``; [B, channels_in, H, W] -> [B, channels, H, W]."""
    return normalised(nn.Conv2d(channels_in, channels, 1, bias=False), *behind)


def conv1x1(channels_in: int, channels: int) -> nn.Conv2d:
    """A 1 x 1 convolution with biases alone; [B, channels_in, H, W] -> [B, channels, H, W]."""
    return nn.Conv2d(channels_in, channels, 1)


def generator(channels: int) -> nn.Sequential:
    """Two 3 x 3 convolutions with a ReLU between them; [B, channels, H, W] -> the same shape."""
    first, second = (nn.Conv2d(channels, channels, 3, padding=1) for _ in range(2))
    return nn.Sequential(first, nn.ReLU(), second)


def perceptron(channels_in: int, between: int, channels: int) -> nn.Sequential:
    """Two linear layers with layer norm and GELU between them; [..., channels_in] -> [..., channels]."""
    return nn.Sequential(
        nn.Linear(channels_in, between), nn.LayerNorm(between), nn.GELU(), nn.Linear(between, channels)
    )


def where_channels_differ(student: Maps, teacher: Maps, connector: Callable[[int, int], nn.Module]) -> nn.ModuleList:
    """What ``connector`` makes of (C_s, C_t) for each pair of stages; the identity where they are equal.

    Args:
        student: an example of the maps [B, C_s, H_s, W_s].
        teacher: likewise.
        connector: from the channels in and out.
    """
    channels = [(s.shape[1], t.shape[1]) for s, t in zip(student, teacher)]
    return nn.ModuleList(nn.Identity() if ours == theirs else connector(ours, theirs) for ours, theirs in channels)


def convolutions(
    channels: Sequence[int], conv: Callable[[int, int], nn.Module], activation: Callable[[], nn.Module]
) -> nn.Sequential:
    """Convolutions from channels[0] to channels[1], and so on, an activation behind each.

    [B, channels[0], H, W] -> [B, channels[-1], H, W] where ``conv`` keeps the size.
    """
    parts = [(conv(one, other), activation()) for one, other in pairwise(channels)]
    return nn.Sequential(*(part for pair in parts for part in pair))


def check_head(name: str, last: Tensor, weight: Tensor) -> None:
    """The classifier, [K, D], must be linear on the pooled map, [B, C, H, W]: D = C.

    Raises:
        ValueError: it is not.
    """
    if last.shape[1] != weight.shape[1]:
        raise ValueError(
            f"{name} needs classifiers that see the pooled map: {weight.shape[1]} inputs, {last.shape[1]} channels"
        )
