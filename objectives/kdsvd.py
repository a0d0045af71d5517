"""Distillation by singular value decomposition. B samples, C channels, H x W pixels."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from objectives.contract import COUNT, objective
from objectives.layers import Maps
from objectives.numerics import summed

_EXTRA = 3  # of the student's vectors that may stand for one of the teacher's


@objective(reads="stages", vectors=COUNT)
def kdsvd(student: Maps, teacher: Maps, *, vectors: int = 1, by_pixels: bool = False) -> Tensor:
    """Squared distance of the radial basis functions between the singular vectors of consecutive stages.

    Lee et al., ECCV 2018, arXiv 1807.06819, equations 1 to 5; summed, over B. The right singular vectors of the student
    are those most like the teacher's, with their sign. The value depends on the signs that the decomposition happens to
    give the teacher's vectors. Gradients are finite for maps without full rank, where that of the decomposition is not.

    Args:
        student: two maps or more [B, C, H, W].
        teacher: likewise, of the same widths.
        vectors: k, how many of each map.
        by_pixels: decompose [H W, C] as the paper and RepDistiller do, which needs equal channels, in place of
            [C H, W], which is MDistiller's.

    Returns:
        Scalar.

    Raises:
        ValueError: one stage only, or sizes that do not agree.
    """
    if len(student) < 2:
        raise ValueError("kdsvd compares consecutive stages: it needs two or more")
    aligned = [_aligned(_matrix(s, by_pixels), _matrix(t, by_pixels), vectors) for s, t in zip(student, teacher)]
    flows = ([_radial(x, y) for x, y in pairwise(side)] for side in zip(*aligned))
    return summed((s - t).square().sum() for s, t in zip(*flows)) / len(student[0])


def _matrix(x: Tensor, by_pixels: bool) -> Tensor:
    return x.flatten(2).mT if by_pixels else x.flatten(1, 2)


def _aligned(student: Tensor, teacher: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The first right singular vectors of matrices [B, M, W], times the teacher's singular values; [B, W, count]."""
    if student.shape[2] != teacher.shape[2]:
        raise ValueError(f"kdsvd compares maps of equal size, not {student.shape[2]} and {teacher.shape[2]}")
    with torch.no_grad():
        squares, right = _eigen(teacher)
        scale = F.normalize(squares[:, :count].sqrt(), dim=1)[:, None].to(teacher)
        wanted = right[:, :, :count].to(teacher)
    candidates = _RightVectors.apply(student, min(count + _EXTRA, student.shape[2]))  # [B, W, count + extra]
    with torch.no_grad():
        cosines = wanted.mT @ candidates  # [B, count, count + extra]
        best = cosines.abs().argmax(2, keepdim=True)
        choice = torch.zeros_like(cosines).scatter(2, best, cosines.gather(2, best).sign())
    return candidates @ choice.mT * scale, wanted * scale


def _radial(x: Tensor, y: Tensor) -> Tensor:
    """[B, W, k], [B, W', k] -> [B, W', W, k]."""
    return torch.exp(-(y[:, :, None] - x[:, None]).square() / 8)


class _RightVectors(torch.autograd.Function):
    """The first right singular vectors of [B, M, W], as [B, W, count]; the gradient leaves out vectors with the same
    singular value, among which there is no direction."""

    @staticmethod
    def forward(ctx: Any, matrix: Tensor, count: int) -> Tensor:
        squares, right = _eigen(matrix)
        ctx.save_for_backward(matrix, squares, right)
        return right[:, :, :count].to(matrix)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        matrix, squares, right = ctx.saved_tensors
        count = gradient.shape[2]
        # d v_j = sum over i of v_i (v_i . dA v_j) / (l_j - l_i) for A = matrix.T matrix with eigenvalues l.
        gap = squares[:, None, :count] - squares[:, :, None]  # [B, W, count]
        flat = gap.abs() <= torch.finfo(matrix.dtype).eps * squares[:, :1, None] * gap.shape[1]
        inverse = torch.where(flat, 0, 1 / torch.where(flat, 1, gap))
        outer = right @ (inverse * (right.mT @ gradient.double())) @ right[:, :, :count].mT  # [B, W, W]
        return matrix @ (outer + outer.mT).to(matrix), None


def _eigen(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Squared singular values [B, W], falling, and right singular vectors [B, W, W] of [B, M, W]; float64.

    By the eigenvectors of matrix.T matrix, in double precision for the square that this takes: many times faster.
    """
    squares, right = torch.linalg.eigh(matrix.mT.double() @ matrix.double())
    return squares.flip(1).clamp(min=0), right.flip(2)
