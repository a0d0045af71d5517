"""Objectives on the relations between the samples of a batch, which need no common space. B samples, D dimensions.

They see the local batch of each rank.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from objectives.contract import COUNT, POSITIVE, objective
from objectives.numerics import reduced, unit

_NEAR = 1e-6  # distances below count as this, with no gradient, as RepDistiller and MDistiller have it


@objective(reads="pooled", epsilon=POSITIVE)
def pkt(student: Tensor, teacher: Tensor, *, epsilon: float = 1e-7) -> Tensor:
    """Probabilistic knowledge transfer: KL divergence of the rows of cosine similarities, averaged over all entries.

    Passalis and Tefas, ECCV 2018, arXiv 1803.10837, equations 4 to 6, with the cosine kernel (1 + cos) / 2. The
    diagonal counts and the mean is over B^2 entries, as in the authors' code; hence the weight of 30,000.

    Args:
        student: [B, D_s].
        teacher: [B, D_t].
        epsilon: added to norms and probabilities.

    Returns:
        Scalar.
    """
    p_student, p_teacher = (_similarities(x, epsilon) for x in (student, teacher))  # [B, B]
    return (p_teacher * ((p_teacher + epsilon) / (p_student + epsilon)).log()).mean()


def _similarities(x: Tensor, epsilon: float) -> Tensor:
    """[B, D] -> [B, B], rows that sum to one."""
    x = unit(x, epsilon=epsilon)
    kernel = ((x @ x.T + 1) / 2).clamp(min=0)  # rounding takes opposite rows below, and the logarithm to NaN
    return kernel / kernel.sum(1, keepdim=True)


@objective(reads="pooled")
def rkd_distance(student: Tensor, teacher: Tensor, *, squared: bool = False, reduction: str = "mean") -> Tensor:
    """Relational distillation, distance-wise: smooth L1 of the distances, each divided by their mean.

    Park et al., CVPR 2019, arXiv 1904.05068, equations 4 to 6; averaged over B^2 entries. L2D (Yang et al., ICCV 2023,
    arXiv 2308.06453) has `batchmean`, beside the angles, both with weight 10.

    Args:
        student: [B, D_s].
        teacher: [B, D_t].
        squared: compare squared distances, an option of RepDistiller and MDistiller.
        reduction: `mean`, over B^2; `batchmean`, over B; `sum`.

    Returns:
        Scalar; 0 for one sample.
    """
    ours, theirs = _relative_distances(student, squared), _relative_distances(teacher, squared)
    return reduced(2 * F.smooth_l1_loss(ours, theirs, reduction="sum"), reduction, len(student), len(student))


def _relative_distances(x: Tensor, squared: bool) -> Tensor:
    """Of every pair once; [B, D] -> [B (B - 1) / 2]."""
    distances = F.pdist(x).clamp(min=_NEAR)
    if squared:
        distances = distances.square()
    return distances / (distances.sum() / max(1, distances.numel()))


@objective(reads="pooled")
def rkd_angle(student: Tensor, teacher: Tensor) -> Tensor:
    """Relational distillation, angle-wise: smooth L1 of the cosines at every sample between every two others.

    Park et al., CVPR 2019, arXiv 1904.05068, equations 7 to 9; averaged over B^3 entries. The authors weight distance
    and angle as 25 : 50 on CIFAR-100.

    Args:
        student: [B, D_s].
        teacher: [B, D_t].

    Returns:
        Scalar.
    """
    return F.smooth_l1_loss(_angles(student), _angles(teacher))


def _angles(x: Tensor) -> Tensor:
    """[B, D] -> [B, B, B]: cosine at the first sample between the second and the third; 0 where two are the same."""
    directions = unit(x[None] - x[:, None], 2)  # [B, B, D]
    return directions @ directions.mT


@objective(reads="last")
def sp(student: Tensor, teacher: Tensor) -> Tensor:
    """Similarity preserving: squared distance of the row-normalised Gram matrices of the samples, over B^2.

    Tung and Mori, ICCV 2019, arXiv 1907.09682, equations 1 to 4.

    Args:
        student: [B, C_s, H, W] or [B, D_s].
        teacher: [B, C_t, H', W'] or [B, D_t].

    Returns:
        Scalar.
    """
    return (_gram_rows(student) - _gram_rows(teacher)).square().mean()


def _gram_rows(x: Tensor) -> Tensor:
    """[B, ...] -> [B, B], rows of length one."""
    x = x.flatten(1)
    return unit(x @ x.T)


@objective(reads="pooled", gamma=POSITIVE)
def cc(student: Tensor, teacher: Tensor, *, gamma: float = 0.4) -> Tensor:
    """Correlation congruence: squared distance of the matrices of RBF correlations of the samples, over B^2.

    Peng et al., ICCV 2019, arXiv 1904.01802, equations 6 and 9, with features of length one and the kernel itself in
    place of its Taylor series. RepDistiller's `cc` is `consecutive_correlation`.

    Args:
        student: [B, D_s].
        teacher: [B, D_t].
        gamma: of the kernel exp(-gamma |x - y|^2).

    Returns:
        Scalar.
    """
    return (_rbf(student, gamma) - _rbf(teacher, gamma)).square().mean()


def _rbf(x: Tensor, gamma: float) -> Tensor:
    """[B, D] -> [B, B]."""
    x = unit(x)
    return torch.exp(-gamma * (2 - 2 * x @ x.T))


@objective("consecutive_correlation", reads="pooled", dimensions=COUNT)
class ConsecutiveCorrelation(nn.Module):
    """RepDistiller's `cc`: products of the distances of consecutive samples, summed over dimensions.

    Mean over i of sum_d |D_i,d| |D_i+1,d|, D = student - teacher after linear embeddings. Its weight there is 0.02. The
    paper's correlation congruence is `cc`.

    Args:
        student: an example [B, D_s].
        teacher: likewise [B, D_t].
        dimensions: of the embeddings.
    """

    def __init__(self, student: Tensor, teacher: Tensor, *, dimensions: int = 128) -> None:
        super().__init__()
        self.embed_student = nn.Linear(student.shape[1], dimensions)
        self.embed_teacher = nn.Linear(teacher.shape[1], dimensions)

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Scalar, of [B, D_s] and [B, D_t]."""
        return consecutive(self.embed_student(student), self.embed_teacher(teacher))


def consecutive(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean over the samples but the last of sum_d |D_i,d| |D_i+1,d|, 0 for one sample; each [B, D] -> scalar."""
    distance = (student - teacher).abs()
    return (distance[:-1] * distance[1:]).sum() / max(len(distance) - 1, 1)
