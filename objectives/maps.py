"""Objectives on feature maps, stage by stage, without parameters.

The stages of student and teacher come in pairs, shallow to deep. B samples, C channels, H x W pixels.
"""

from __future__ import annotations

from torch import Tensor

from objectives.contract import Range, objective
from objectives.layers import Maps, same_size
from objectives.numerics import summed, unit

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
    return summed(
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

    return summed(discrepancy(s, t) for s, t in map(same_size, student, teacher))


def _kernel(dots: Tensor, by_rows: Tensor, by_columns: Tensor) -> Tensor:
    """Mean square of dots [B, C, C'] between vectors made of length one; by_rows [B, C], by_columns [B, C']."""
    return (dots * by_rows[:, :, None] * by_columns[:, None]).square().mean()
