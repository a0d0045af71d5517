"""Overhaul of feature distillation. B samples, C channels, H x W pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from objectives.contract import COUNT, objective
from objectives.layers import Maps, normalised, pooled_to
from objectives.numerics import summed
from utils.distributed import all_sum


@objective(reads="stages_pre", kernel_size=COUNT)
class Ofd(nn.Module):
    """Partial L2 distance before the ReLUs, of the teacher's maps behind a margin; a stage counts half of the next one.

    Heo et al., ICCV 2019, arXiv 1904.01866, equations 2 to 5. A convolution, 1 x 1 as the authors have it, and batch
    norm bring the student to the teacher's channels. The margin of a channel is the mean of its negative responses, by
    the batch norm that makes them, or measured as training goes where there is none, over all ranks. Averaged over B,
    summed over the rest; hence weights of 1e-3 (CIFAR-100) and 1e-4 (ImageNet).

    Args:
        student: an example of the maps [B, C_s, H, W], shallow to deep.
        teacher: likewise.
        teacher_norms: the batch norm before each of the teacher's, None without one.
        kernel_size: of the convolutions, pixels; odd.

    Raises:
        ValueError: the kernel is even.
    """

    def __init__(
        self,
        student: Maps,
        teacher: Maps,
        teacher_norms: Sequence[nn.BatchNorm2d | None],
        *,
        kernel_size: int = 1,
    ) -> None:
        super().__init__()
        if kernel_size % 2 == 0:
            raise ValueError(f"kernel_size={kernel_size}: an odd number, or the maps change their size")
        self.connectors = nn.ModuleList(
            _connector(s.shape[1], t.shape[1], kernel_size) for s, t in zip(student, teacher)
        )
        self.known = [norm is not None for norm in teacher_norms]
        for number, (norm, t) in enumerate(zip(teacher_norms, teacher)):
            known = margin(norm.weight, norm.bias) if norm is not None else t.new_zeros(t.shape[1])
            self.register_buffer(f"margin{number}", known)
            self.register_buffer(f"negatives{number}", torch.zeros_like(known))  # how many were measured

    def forward(self, student: Maps, teacher: Maps) -> Tensor:
        """Scalar, of maps [B, C, H, W]; the teacher's are average-pooled to the student's size."""
        losses = []
        for number, (s, t, connector) in enumerate(zip(student, teacher, self.connectors)):
            if not self.known[number] and self.training:
                self._measure(number, t)
            loss = partial_l2(
                connector(s), t if t.shape[2:] == s.shape[2:] else pooled_to(t, s), self.get_buffer(f"margin{number}")
            )
            losses.append(loss / 2 ** (len(student) - 1 - number))
        return summed(losses)

    @torch.no_grad()
    def _measure(self, number: int, t: Tensor) -> None:
        """Bring the mean of all negative responses so far up to date with t: [B, C, H, W], and those of other ranks."""
        mean, count = self.get_buffer(f"margin{number}"), self.get_buffer(f"negatives{number}")
        total, new = all_sum(torch.stack([x.sum((0, 2, 3)) for x in (t.clamp(max=0), (t < 0).to(t))]))  # [C] each
        total += mean * count
        count += new
        mean.copy_(total / count.clamp(min=1))


def partial_l2(student: Tensor, teacher: Tensor, margin: Tensor) -> Tensor:
    """Squared distance after a margin ReLU of the teacher, where the student is not already below it.

    Heo et al., ICCV 2019, arXiv 1904.01866, equations 2 and 5. Averaged over B, summed over the rest.

    Args:
        student: [B, C, H, W], before its ReLU.
        teacher: likewise.
        margin: [C], negative.

    Returns:
        Scalar.
    """
    with torch.no_grad():
        target = torch.maximum(teacher, margin.view(-1, 1, 1))
        target = torch.where(target > 0, target, torch.minimum(student, target))
    return (student - target).square().sum() / len(student)


def _connector(channels_in: int, channels: int, kernel_size: int) -> nn.Sequential:
    conv = nn.Conv2d(channels_in, channels, kernel_size, padding=kernel_size // 2, bias=False)
    nn.init.normal_(conv.weight, 0, math.sqrt(2 / (kernel_size**2 * channels)))
    return normalised(conv)


def margin(weight: Tensor, bias: Tensor) -> Tensor:
    """Mean of the negative part of a normal variable with standard deviation |weight| and mean bias; each [C].

    Where next to nothing is negative (less than 0.1 %), -3 |weight|. Heo et al., ICCV 2019, arXiv 1904.01866,
    equation 4 and the authors' code.
    """
    deviation, mean = weight.detach().double().abs().clamp(min=1e-12), bias.detach().double()
    normal = torch.distributions.Normal(torch.zeros_like(mean), torch.ones_like(mean))
    negative = normal.cdf(-mean / deviation)  # share
    expected = mean - deviation * normal.log_prob(mean / deviation).exp() / negative.clamp(min=1e-30)
    return torch.where(negative > 1e-3, expected, -3 * deviation).to(weight)
