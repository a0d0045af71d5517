"""Objectives on feature maps, stage by stage, without parameters.

Maps come as sequences, the stages of student and teacher in pairs, shallow to deep. B samples, C channels, H x W
pixels.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional as F

from objectives.contract import Range, objective
from objectives.numerics import unit

Maps = Sequence[Tensor]

_LEAST = 1e-24  # of a squared length


@objective(reads="stages", power=Range(1))
def at(student: Maps, teacher: Maps, *, power: float = 2.0) -> Tensor:
    """Attention transfer: mean squared distance of the normalised attention maps, summed over stages.

    A map is the mean over channels of |F|^p, flattened and divided by its length. Zagoruyko and Komodakis, ICLR 2017,
    arXiv 1612.03928, section 3.1; the mean of squares in place of the length is that of the authors' code.

    Args:
        student: maps [B, C, H, W].
        teacher: likewise; the larger of a pair is average-pooled to the smaller.
        power: p.

    Returns:
        Scalar.
    """
    return _summed(
        (_attention(s, power) - _attention(t, power)).square().mean() for s, t in map(same_size, student, teacher)
    )


def _attention(x: Tensor, power: float) -> Tensor:
    """[B, C, H, W] -> [B, H W]."""
    powers = x.square() if power == 2 else x.abs().pow(power)
    return unit(powers.sum(1).flatten(1))  # C times the mean, before it is normalised


@objective(reads="stages")
def nst(student: Maps, teacher: Maps) -> Tensor:
    """Neuron selectivity transfer: squared maximum mean discrepancy of the channels, summed over stages.

    Channels are flattened and divided by their length; the kernel is the squared dot product. Huang and Wang, 2017,
    arXiv 1707.01219, equations 5 and 7 (d = 2, c = 0).

    Args:
        student: maps [B, C, H, W].
        teacher: likewise; the larger of a pair is average-pooled to the smaller.

    Returns:
        Scalar.
    """

    def discrepancy(s: Tensor, t: Tensor) -> Tensor:
        s, t = (x.flatten(2) for x in (s, t))  # [B, C, H W]
        if s.shape[2] < min(s.shape[1], t.shape[1]):  # the same sum, by fewer products
            s, t = (unit(x, 2) for x in (s, t))
            s, t = (x.mT @ x / x.shape[1] for x in (s, t))  # [B, H W, H W]
            return (s - t).square().sum((1, 2)).mean()
        of_student, of_teacher, of_both = s @ s.mT, t @ t.mT, s @ t.mT  # [B, C, C]
        by_s, by_t = (x.diagonal(dim1=1, dim2=2).clamp(min=_LEAST).rsqrt() for x in (of_student, of_teacher))
        return _kernel(of_teacher, by_t, by_t) + _kernel(of_student, by_s, by_s) - 2 * _kernel(of_both, by_s, by_t)

    return _summed(discrepancy(s, t) for s, t in map(same_size, student, teacher))


def _kernel(dots: Tensor, by_rows: Tensor, by_columns: Tensor) -> Tensor:
    """Mean square of dots [B, C, C'] between vectors made of length one; by_rows [B, C], by_columns [B, C']."""
    return (dots * by_rows[:, :, None] * by_columns[:, None]).square().mean()


def flow_distance(student: Maps, teacher: Maps) -> Tensor:
    """Mean squared distance of the Gram matrices between consecutive stages, summed; see `objectives.fsp`.

    Args:
        student: maps [B, C, H, W].
        teacher: likewise, with the same channels.

    Returns:
        Scalar.
    """
    flows = ([_flow(*same_size(x, y)) for x, y in pairwise(maps)] for maps in (student, teacher))
    return _summed((s - t).square().mean() for s, t in zip(*flows))


def _flow(x: Tensor, y: Tensor) -> Tensor:
    """[B, C, H, W], [B, D, H, W] -> [B, C, D]."""
    return x.flatten(2) @ y.flatten(2).mT / x[0, 0].numel()


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


def boundary_distance(student: Tensor, teacher: Tensor, margin: float) -> Tensor:
    """Squared distance to ``margin`` beyond zero where one of the two is active and the other not.

    Averaged over B, summed over the rest; see `objectives.ab`.

    Args:
        student: [B, C, H, W], before its ReLU.
        teacher: likewise.
        margin: towards the teacher's side.

    Returns:
        Scalar.
    """
    with torch.no_grad():
        target = torch.where(teacher > 0, student.clamp(min=margin), student.clamp(max=-margin))
    return (student - target).square().sum() / len(student)


def factor_distance(student: Tensor, teacher: Tensor, *, power: float = 1.0) -> Tensor:
    """Mean of |q_s - q_t|^p of factors divided by their length.

    Kim et al., Paraphrasing complex network, NeurIPS 2018, arXiv 1802.04977, equation 3.

    Args:
        student: factors [B, ...].
        teacher: likewise.
        power: p.

    Returns:
        Scalar.
    """
    student, teacher = (unit(x.flatten(1)) for x in (student, teacher))
    return (student - teacher).abs().pow(power).mean()


def hcl(student: Maps, teacher: Maps) -> Tensor:
    """Hierarchical context loss: mean squared distances of the maps and of their averages over 4 x 4, 2 x 2 and 1 x 1.

    Chen et al., CVPR 2021, arXiv 2104.09044, section 3.3. Levels of the pyramid have weights 1, 1/2, 1/4, 1/8 of those
    that are smaller than the map, divided by their sum; stages are summed.

    Args:
        student: maps [B, C, H, W].
        teacher: maps of the same shapes.

    Returns:
        Scalar.
    """

    def pyramid(s: Tensor, t: Tensor) -> Tensor:
        gap = s - t
        gaps = [gap, *(F.adaptive_avg_pool2d(gap, size) for size in (4, 2, 1) if size < s.shape[2])]
        weights = [0.5**number for number in range(len(gaps))]
        return _summed(weight * x.square().sum() / x.numel() for weight, x in zip(weights, gaps)) / sum(weights)

    return _summed(pyramid(s, t) for s, t in zip(student, teacher))


def mean_squared_distance(x: Tensor, y: Tensor) -> Tensor:
    """Mean of (x - y)^2; the gradient has the memory format of x, which that of `F.mse_loss` has not."""
    return (x - y).square().sum() / x.numel()


def same_size(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Two maps, the larger average-pooled to the size of the smaller."""
    if x.shape[2] > y.shape[2]:
        return pooled_to(x, y), y
    return x, (pooled_to(y, x) if y.shape[2] > x.shape[2] else y)


def pooled_to(x: Tensor, y: Tensor) -> Tensor:
    """x average-pooled to the height and width of y."""
    return F.adaptive_avg_pool2d(x, (y.shape[2], y.shape[3]))


def _summed(losses: Iterable[Tensor]) -> Tensor:
    return torch.stack(list(losses)).sum()
