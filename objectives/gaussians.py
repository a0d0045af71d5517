"""Wasserstein distance between maps as Gaussian distributions. B samples, C channels, H x W pixels."""

from __future__ import annotations

from itertools import product

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from objectives.contract import COUNT, NOT_NEGATIVE, objective
from objectives.layers import conv1x1, pointwise, same_size
from objectives.numerics import summed

_EPSILON = 1e-5  # beside variances, as the authors' code has it


@objective("wkd_f", reads="last", ratio=NOT_NEGATIVE, grid=COUNT, hidden=NOT_NEGATIVE)
class WkdF(nn.Module):
    """Squared Wasserstein distance of the Gaussians that fit the pixels of a projection and of the teacher's map.

    Lv et al., NeurIPS 2024, Wasserstein distance rivals Kullback-Leibler divergence for knowledge distillation, arXiv
    2412.08139, WKD-F: ``ratio`` |m_s - m_t|^2 of the means, plus the distance of the covariances S_s and S_t. Those are
    diagonal, which leaves |d_s - d_t|^2 of the standard deviations, or ``full``: tr(S_s + S_t - 2 (S_s^1/2 S_t
    S_s^1/2)^1/2). Summed over channels, averaged over images and the cells of a grid. A 1 x 1 convolution, batch norm
    and ReLU bring the student's map to the teacher's channels; the larger map is average-pooled to the size of the
    smaller.

    Published: on CIFAR-100 weight 0.08 with ``ratio`` 4 for ResNet-8x4, 0.3 with ``ratio`` 3 and ``grid`` 4 for
    ShuffleNetV1; on ImageNet ``grid`` 4 and ``hidden`` 256, weight 0.02 for ResNet-18, 0.005 for MobileNetV1. In the
    last 90 of 240 and 70 of 100 epochs, of ResNet-18 in all 100, the weight falls to zero with a cosine.

    Args:
        student: an example of the last map [B, C_s, H, W].
        teacher: likewise [B, C_t, H', W'].
        ratio: weight of the means beside the covariances.
        grid: cells a side, each with Gaussians of its own; cut as adaptive pooling does.
        hidden: channels of a bottleneck in place of the one convolution: 1 x 1, 3 x 3 and 1 x 1; none when 0.
        full: whole covariance matrices. The decomposition that this takes is slow, and waits for a GPU.
    """

    def __init__(
        self,
        student: Tensor,
        teacher: Tensor,
        *,
        ratio: float = 2.0,
        grid: int = 1,
        hidden: int = 0,
        full: bool = False,
    ) -> None:
        super().__init__()
        self.connector = _connector(student.shape[1], teacher.shape[1], hidden)
        self.ratio, self.grid, self.full = ratio, grid, full

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Scalar, of maps [B, C, H, W]."""
        student, teacher = same_size(self.connector(student), teacher)
        if self.full:
            pairs = list(zip(_cells(student, self.grid), _cells(teacher, self.grid)))
            means = summed((s.mean(2) - t.mean(2)).square().sum() for s, t in pairs)
            covariances = summed(_between_covariances(s, t) for s, t in pairs)
        else:
            ours, theirs = (_moments(x, self.grid) for x in (student, teacher))
            means, covariances = ((s - t).square().sum() for s, t in zip(ours, theirs))
        return (self.ratio * means + covariances) / (len(student) * self.grid**2)


def _connector(channels_in: int, channels: int, hidden: int) -> nn.Sequential:
    """[B, channels_in, H, W] -> [B, channels, H, W]."""
    if not hidden:
        return pointwise(channels_in, channels, nn.ReLU())
    between = nn.Conv2d(hidden, hidden, 3, padding=1)
    return nn.Sequential(conv1x1(channels_in, hidden), between, pointwise(hidden, channels, nn.ReLU()))


def _moments(x: Tensor, grid: int) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel in each cell; [B, C, H, W] -> [B, C, grid, grid] each."""
    centre = x.mean((2, 3), keepdim=True)
    rest = x - centre  # or the difference of the squares would be rounding alone
    means = F.adaptive_avg_pool2d(rest, grid)
    variances = F.adaptive_avg_pool2d(rest.square(), grid) - means.square()
    return means + centre, (variances.clamp(min=0) + _EPSILON).sqrt()


def _cells(x: Tensor, grid: int) -> list[Tensor]:
    """[B, C, H, W] -> the cells of a grid, [B, C, pixels] each."""
    spans = [[(size * place // grid, -(-size * (place + 1) // grid)) for place in range(grid)] for size in x.shape[2:]]
    return [x[:, :, top:bottom, left:right].flatten(2) for (top, bottom), (left, right) in product(*spans)]


def _between_covariances(student: Tensor, teacher: Tensor) -> Tensor:
    """Distance of the covariances of pixels [B, C, N], summed over B; scalar.

    With S = X X' / N and T = Y Y' / N of centred pixels, (S^1/2 T S^1/2)^1/2 has the trace of the singular values of
    X' Y / N. Their gradient is finite for covariances without full rank, where that of a square root is not.
    """
    s, t = (x - x.mean(2, keepdim=True) for x in (student, teacher))
    common = torch.linalg.svdvals(s.mT @ t).sum()
    return (s.square().sum() + t.square().sum() - 2 * common) / s.shape[2]
