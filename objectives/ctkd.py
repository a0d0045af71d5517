"""Curriculum temperature. B samples, K classes."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from objectives.contract import NOT_NEGATIVE, POSITIVE, objective
from objectives.logits import kd


@objective(reads="logits", lowest=POSITIVE, span=NOT_NEGATIVE, loops=POSITIVE)
class Ctkd(nn.Module):
    """`kd` with a temperature that learns to make the task harder, more and more.

    T = ``lowest`` + ``span`` sigmoid(t) with a trained t, whose gradient is reversed and grows with a cosine over the
    first ``loops`` epochs. Li et al., AAAI 2023, arXiv 2211.16231, equations 3 to 7, the global variant with the
    authors' numbers.

    Args:
        lowest: least temperature.
        span: greatest minus least.
        loops: epochs in which the reversed gradient grows from 0 to 1.
    """

    strength: Tensor  # scalar, of the reversed gradient

    def __init__(self, *, lowest: float = 1.0, span: float = 20.0, loops: float = 10.0) -> None:
        super().__init__()
        self.lowest, self.span, self.loops = lowest, span, loops
        self.raw = nn.Parameter(torch.ones(()))
        self.register_buffer("strength", torch.zeros(()), persistent=False)

    def set_epoch(self, epoch: float) -> None:
        """Move the curriculum to ``epoch``, counted from 1."""
        self.strength.fill_((1 - math.cos(min(epoch, self.loops) / self.loops * math.pi)) / 2)

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Scalar, of logits [B, K]."""
        temperature = self.lowest + self.span * torch.sigmoid(_Reversed.apply(self.raw, self.strength))
        return kd(student, teacher, temperature=temperature)


class _Reversed(torch.autograd.Function):
    """The tensor itself; its gradient times minus ``strength``."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, strength: Tensor) -> Tensor:
        ctx.save_for_backward(strength)
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (strength,) = ctx.saved_tensors
        return -strength * gradient, None
