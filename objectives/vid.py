"""Variational information distillation. B samples, C channels, H x W pixels."""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from objectives.contract import POSITIVE, objective
from objectives.layers import Maps, convolutions, same_size
from objectives.numerics import summed


@objective(reads="stages", variance=POSITIVE, epsilon=POSITIVE)
class Vid(nn.Module):
    """Negative log-likelihood of the teacher's maps under Gaussians around what the student predicts, summed.

    Ahn et al., CVPR 2019, arXiv 1904.05835, equations 4 to 6: a variance for each channel, trained; three 1 x 1
    convolutions predict the mean. The constant log(2 pi) / 2 is left out. In MDistiller the variances stay at their
    first value: they are missing from its optimizer.

    Args:
        student: an example of the maps [B, C_s, H_s, W_s], shallow to deep.
        teacher: likewise.
        variance: before training.
        epsilon: least variance.

    Raises:
        ValueError: the first variance is not above the least.
    """

    def __init__(self, student: Maps, teacher: Maps, *, variance: float = 5.0, epsilon: float = 1e-5) -> None:
        super().__init__()
        if variance <= epsilon:
            raise ValueError(f"variance={variance}: above epsilon={epsilon}, the least")
        self.epsilon = epsilon
        self.means = nn.ModuleList(_mean(s.shape[1], t.shape[1]) for s, t in zip(student, teacher))
        above = variance - epsilon
        scale = above + math.log(-math.expm1(-above))  # softplus of it is the variance above the least
        self.scales = nn.ParameterList(torch.full((t.shape[1],), scale) for t in teacher)

    def forward(self, student: Maps, teacher: Maps) -> Tensor:
        """Scalar, of maps [B, C, H, W]; the larger of a pair is average-pooled to the smaller."""
        losses = []
        for s, t, mean, scale in zip(student, teacher, self.means, self.scales):
            s, t = same_size(s, t)
            variance = F.softplus(scale) + self.epsilon  # [C]
            errors = (mean(s) - t).square().sum((0, 2, 3)) / t[:, 0].numel()
            losses.append((errors / variance + variance.log()).mean() / 2)
        return summed(losses)


def _mean(channels_in: int, channels: int) -> nn.Sequential:
    """Three 1 x 1 convolutions, ReLUs between them; [B, channels_in, H, W] -> [B, channels, H, W]."""
    conv, relu = partial(nn.Conv2d, kernel_size=1, bias=False), partial(nn.ReLU, inplace=True)
    return convolutions([channels_in, channels, channels, channels], conv, relu)[:-1]
