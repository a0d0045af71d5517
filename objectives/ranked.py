"""Objectives on the logits of groups of classes, which the networks' own ranks make up. B samples, K classes."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional as F

from objectives.contract import COUNT, NOT_NEGATIVE, POSITIVE, objective
from objectives.logits import divergence, lowest
from objectives.numerics import in_float64, summed

_NEAR, _SCALE, _DECAY = 1.5, 2.0, 0.05  # epsilon, delta and lambda of LDRLD's weights


@objective(reads="logits", alpha=NOT_NEGATIVE, beta=NOT_NEGATIVE, depth=COUNT, temperature=POSITIVE)
@in_float64
def ldrld(
    student: Tensor,
    teacher: Tensor,
    *,
    alpha: float = 10.5,
    beta: float = 7.0,
    depth: int = 7,
    temperature: float = 4.0,
    averaged: bool = True,
) -> Tensor:
    """Local dense relations: T^2 (alpha L + beta KL among the classes that are not among the student's first).

    L compares the student's first ``depth`` classes two by two, each pair by a softmax of its own, weighted by their
    ranks r and s, from 1, with 2 exp(-0.05 (r + s)) / (|r - s| + 1.5); and all of them by one softmax. Averaged over
    the batch. Xu et al., ICCV 2025, arXiv 2507.15911, its adaptive decay weight, local integrity and remaining
    knowledge. The paper sums L over the pairs and the whole; the authors' code, for which their alpha and beta are,
    takes the mean, as ``averaged``. The defaults are theirs for R32x4 to R8x4 on CIFAR-100.

    Args:
        student: logits [B, K].
        teacher: logits [B, K].
        alpha: weight of the first classes.
        beta: weight of the rest.
        depth: how many are the first.
        temperature: T.
        averaged: see above.

    Returns:
        Scalar.
    """
    ours, theirs = student / temperature, teacher / temperature
    depth = min(depth, student.shape[1])
    first = student.topk(depth, 1).indices  # [B, depth]
    mine, their = ours.gather(1, first), theirs.gather(1, first)
    one, other = torch.triu_indices(depth, depth, 1, device=student.device)  # [P] each, of the P pairs
    rank, lower = (place.to(student) + 1 for place in (one, other))
    weight = _SCALE * (-_DECAY * (rank + lower)).exp() / (lower - rank + _NEAR)  # [P]
    pairs = [torch.stack([z[:, one], z[:, other]], 1) for z in (their, mine)]  # [B, 2, P]
    local = (weight * _divergence(*pairs)).sum(1) + _divergence(their, mine)  # [B]
    if averaged:
        local = local / (len(weight) + 1)
    is_first = torch.zeros_like(student, dtype=torch.bool).scatter(1, first, True)
    rest = _divergence(*(z.masked_fill(is_first, lowest(z)) for z in (theirs, ours)))
    return temperature**2 * (alpha * local + beta * rest).mean()


@objective(reads="logits", stages=COUNT, temperature=POSITIVE)
@in_float64
def pcd(student: Tensor, teacher: Tensor, *, stages: int = 3, temperature: float = 4.0) -> Tensor:
    """Progressive class-level distillation: T^2 KL within groups of classes, those that differ most in the first group.

    Classes are ordered by |z_t - z_s|, the greatest first, and cut into 1, 2, ..., ``stages`` groups of equal size, of
    which the last takes what remains. A group has a softmax of its own and the weight 1 - cos(p_t, p_s), whose gradient
    counts; summed over groups, averaged over the batch. Li et al., 2025, arXiv 2505.24310. The paper goes through the
    cuts from the finest to the coarsest and back, which gives every cut twice. `stages` is 3 for networks alike and 5
    for others. Their released code has one group of all classes in every stage, unordered, and the cosine of p_t and
    log p_s.

    Args:
        student: logits [B, K].
        teacher: logits [B, K].
        stages: cuts.
        temperature: T; on ImageNet 1.

    Returns:
        Scalar.
    """
    order = (teacher - student).abs().argsort(dim=1, descending=True, stable=True)  # [B, K]
    ours, theirs = ((z / temperature).gather(1, order) for z in (student, teacher))
    losses = []
    for groups in range(1, stages + 1):
        size = student.shape[1] // groups
        for start, end in pairwise([*(size * group for group in range(groups)), student.shape[1]]):
            log_p, log_q = (F.log_softmax(z[:, start:end], 1) for z in (theirs, ours))
            weight = 1 - F.cosine_similarity(log_p.exp(), log_q.exp(), dim=1)  # [B]
            losses.append((weight * divergence(log_p, log_q)).mean())
    return 2 * temperature**2 * summed(losses)


def _divergence(teacher: Tensor, student: Tensor) -> Tensor:
    """KL of the softmax over dimension 1; [B, C, ...] -> [B, ...]."""
    return divergence(F.log_softmax(teacher, 1), F.log_softmax(student, 1))
