"""Objectives on logits of which each is a class for itself, by the sigmoid. B samples, C classes.

What is to be ignored (-1 of `present`, VOC's difficult objects) counts as present, as L2D, CPSD and LSHFM train.
They compute in float64, whatever the precision of the logits.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from objectives.contract import NOT_NEGATIVE, SHARE, Range, objective
from objectives.logits import divergence, lowest
from objectives.numerics import in_float64, power, reduced

_EPSILON = Range(least=0, below=0.5)


@objective(reads="logits", logits="sigmoid", epsilon=_EPSILON)
@in_float64
def bce(student: Tensor, present: Tensor, *, epsilon: float = 0.0, reduction: str = "mean") -> Tensor:
    """Binary cross-entropy of the sigmoids, averaged over batch and classes.

    L2D (Yang et al., ICCV 2023, arXiv 2308.06453) has `sum` and an epsilon of 1e-8.

    Args:
        student: logits [B, C].
        present: int8 [B, C], 0 for absent; present is 1, and -1.
        epsilon: lower probabilities count as this one, without a gradient; 0 for none.
        reduction: `mean`, over B C; `batchmean`, over B; `sum`.

    Returns:
        Scalar.
    """
    log_p, log_rest = _log_sigmoids(student, epsilon)
    return reduced(-torch.where(_is_positive(present), log_p, log_rest).sum(), reduction, *student.shape)


@objective(reads="logits", logits="sigmoid")
@in_float64
def mce(student: Tensor, present: Tensor) -> Tensor:
    """Cross-entropy of the softmax over all classes with each that is present, averaged over those.

    -sum y log softmax(z) / sum y, of the code of LSHFM (Wang et al., TPAMI 2021, arXiv 2011.01424).

    Args:
        student: logits [B, C].
        present: int8 [B, C], 0 for absent; present is 1, and -1.

    Returns:
        Scalar; 0 where nothing is present in the batch.
    """
    positive = _is_positive(present)
    return -(F.log_softmax(student, 1) * positive).sum() / positive.sum().clamp(min=1)


@objective(
    reads="logits",
    logits="sigmoid",
    gamma_positive=NOT_NEGATIVE,
    gamma_negative=NOT_NEGATIVE,
    clip=SHARE,
    epsilon=_EPSILON,
)
@in_float64
def asymmetric(
    student: Tensor,
    present: Tensor,
    *,
    gamma_positive: float = 0.0,
    gamma_negative: float = 4.0,
    clip: float = 0.05,
    epsilon: float = 1e-8,
    both_ends: bool = False,
    through_weights: bool = False,
    reduction: str = "sum",
) -> Tensor:
    """Asymmetric loss: binary cross-entropy that puts easy absent classes away, summed over batch and classes.

    -(1 - p)^gamma_positive log p of the present ones and -q^gamma_negative log(1 - q) of the absent ones, where
    q = max(p - clip, 0). Ridnik et al., ICCV 2021, arXiv 2009.14119, equations 4 to 7; these are their defaults, and
    those of CPSD (Xu et al., IJCAI 2022, arXiv 2205.10986). Query2Label (Liu et al., 2021, arXiv 2107.10834) has
    gamma_negative=2, clip=0, epsilon=1e-5 and the `mean` with a weight of 1000.

    Args:
        student: logits [B, C].
        present: int8 [B, C], 0 for absent; present is 1, and -1.
        gamma_positive: focusing of present classes.
        gamma_negative: of absent ones.
        clip: probability that an absent class may have.
        epsilon: lower probabilities in the logarithms count as this one, without a gradient; 0 for none.
        both_ends: those above 1 - epsilon count as that too.
        through_weights: the gradient goes through the powers, not through the logarithms alone.
        reduction: `sum`; `batchmean`, over B; `mean`, over B C.

    Returns:
        Scalar.
    """
    positive = _is_positive(present)
    p, rest = student.sigmoid(), (-student).sigmoid()  # [B, C]
    log_rest = (rest + clip).log() if clip else F.logsigmoid(-student)
    logarithms = torch.where(positive, F.logsigmoid(student), log_rest).clamp(*_limits(epsilon, both_ends))
    weights = torch.where(positive, power(rest, gamma_positive), power((p - clip).clamp(min=0), gamma_negative))
    if not through_weights:
        weights = weights.detach()
    return reduced(-(weights * logarithms).sum(), reduction, *student.shape)


@objective(reads="logits", logits="sigmoid", epsilon=_EPSILON)
@in_float64
def mld(student: Tensor, teacher: Tensor, *, epsilon: float = 1e-8, reduction: str = "batchmean") -> Tensor:
    """Multi-label logits distillation: KL divergence of each class's two probabilities, over B.

    Yang et al., L2D, ICCV 2023, arXiv 2308.06453, the logits' part, without a temperature; its weight is 10.

    Args:
        student: logits [B, C].
        teacher: logits [B, C].
        epsilon: probabilities closer to 0 or 1 count as that close, without a gradient, as in the authors' code: the
            student learns nothing where it is surer than that, also where it is wrong; 0 for none.
        reduction: `batchmean`, over B; `sum`; `mean`, over B C.

    Returns:
        Scalar.
    """
    sides = (torch.stack(_log_sigmoids(z, epsilon, both_ends=True), 1) for z in (teacher, student))  # [B, 2, C]
    return reduced(divergence(*sides).sum(), reduction, *student.shape)


@objective(reads="logits", logits="sigmoid")
@in_float64
def partial_softmax(student: Tensor, teacher: Tensor, present: Tensor) -> Tensor:
    """For each present class the KL divergence of the softmaxes over it and all absent ones, summed, over B.

    A baseline in the code of L2D (Yang et al., ICCV 2023, arXiv 2308.06453), after Song et al., Handling difficult
    labels for multi-label image classification via uncertainty distillation, ACM Multimedia 2021. Each is computed as
    `dkd` splits a divergence: (the class, the absent ones), and the share of the absent ones times that among them.

    Args:
        student: logits [B, C].
        teacher: logits [B, C].
        present: int8 [B, C], 0 for absent; present is 1, and -1.

    Returns:
        Scalar; images without a present class, or without an absent one, add nothing.
    """
    positive = _is_positive(present)
    shares, among = zip(*(_beside_the_absent(z, positive) for z in (teacher, student)))
    split = divergence(*shares) + shares[0][:, 1].exp() * divergence(*among)[:, None]  # [B, C]
    return (split * positive).sum() / len(student)


def _beside_the_absent(logits: Tensor, positive: Tensor) -> tuple[Tensor, Tensor]:
    """Log probabilities of (a class, the absent ones) [B, 2, C], and of each among the absent ones [B, C]."""
    absent = logits.masked_fill(positive, lowest(logits))
    total = absent.logsumexp(1, keepdim=True)  # [B, 1]
    return torch.stack(_log_sigmoids(logits - total), 1), absent - total


def _log_sigmoids(logits: Tensor, epsilon: float = 0.0, *, both_ends: bool = False) -> tuple[Tensor, Tensor]:
    """log p and log(1 - p), each of at least ``epsilon``, and of at most 1 - epsilon; without a gradient beyond it."""
    limits = _limits(epsilon, both_ends)
    return F.logsigmoid(logits).clamp(*limits), F.logsigmoid(-logits).clamp(*limits)


def _limits(epsilon: float, both_ends: bool) -> tuple[float, float]:
    """Of logarithms of probabilities of at least ``epsilon``, and of at most 1 - epsilon."""
    return math.log(epsilon) if epsilon else -math.inf, math.log1p(-epsilon) if both_ends else 0.0


def _is_positive(present: Tensor) -> Tensor:
    """[B, C] -> bool [B, C]: whether a class is present, or to be ignored."""
    return present != 0
