"""Objectives that need no teacher. B samples, K classes."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from objectives.contract import NOT_NEGATIVE, SHARE, objective
from objectives.logits import lowest, one_hot
from objectives.numerics import in_float64, power


@objective(reads="logits", label_smoothing=SHARE)
@in_float64
def cross_entropy(
    student: Tensor,
    labels: Tensor,
    other_labels: Tensor | None = None,
    other_share: Tensor | None = None,
    *,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Cross-entropy with the true class, or of mixed images with both in their shares, averaged over the batch.

    Args:
        student: logits [B, K].
        labels: int64 [B].
        other_labels: int64 [B], of the images mixed in (Zhang et al., mixup, ICLR 2018, arXiv 1710.09412).
        other_share: [B], how much of each image is theirs.
        label_smoothing: share of the target spread evenly over all classes (Szegedy et al., CVPR 2016,
            arXiv 1512.00567, section 7).

    Returns:
        Scalar.
    """
    if other_labels is None or other_share is None:
        return F.cross_entropy(student, labels, label_smoothing=label_smoothing)
    own, other = (
        F.cross_entropy(student, known, reduction="none", label_smoothing=label_smoothing)
        for known in (labels, other_labels)
    )  # [B]
    return torch.lerp(own, other, other_share.to(own)).mean()


@objective(reads="logits", gamma_positive=NOT_NEGATIVE, gamma_negative=NOT_NEGATIVE, label_smoothing=SHARE)
@in_float64
def asymmetric_single_label(
    student: Tensor,
    labels: Tensor,
    *,
    gamma_positive: float = 0.0,
    gamma_negative: float = 4.0,
    label_smoothing: float = 0.1,
) -> Tensor:
    """Cross-entropy whose true and whose other classes are focused on by themselves, averaged over the batch.

    -sum_k t_k w_k log p_k with the smoothed targets t; w = (1 - p)^gamma_positive of the true class and
    p^gamma_negative of the others. The gradient goes through w. The form of Ridnik et al., ICCV 2021, arXiv 2009.14119,
    for one class an image, with the defaults of their code.

    Args:
        student: logits [B, K].
        labels: int64 [B].
        gamma_positive: of the true class.
        gamma_negative: of the others.
        label_smoothing: share of the target spread evenly over all classes.

    Returns:
        Scalar.
    """
    classes = student.shape[1]
    is_true = one_hot(labels, classes)  # [B, K]
    log_p = F.log_softmax(student, 1)
    p_others = log_p.exp().masked_fill(is_true, 0)
    missed = p_others.sum(1, keepdim=True)  # [B, 1], 1 - p of the true class, also where that is next to 1
    weights = torch.where(is_true, power(missed, gamma_positive), power(p_others, gamma_negative))
    targets = is_true.to(log_p) * (1 - label_smoothing) + label_smoothing / classes
    return -(targets * weights * log_p).sum(1).mean()


@objective(reads="logits", alpha=NOT_NEGATIVE, beta=NOT_NEGATIVE, mu=NOT_NEGATIVE)
class Uskd(nn.Module):
    """Self-distillation without a teacher: soft labels made of the true class's probability and of Zipf's law.

    The true class learns from p^2 + 1 - mean(p^2); the others from a Zipf distribution in the order of two rankings,
    the student's own and a weak classifier's on its pooled features, which learns smoothed labels. Yang et al., ICCV
    2023, arXiv 2303.13005, equations 10 to 16. Beside cross-entropy, with alpha 1, beta 0.1 and mu 0.005 on ImageNet,
    each 0.1 on CIFAR-100.

    Args:
        student: an example of the logits [B, K].
        student_pooled: an example [B, D].
        alpha: weight of the true class's part.
        beta: weight of the others' part.
        mu: weight of the weak classifier's cross-entropy.
        by_log: rank by log probabilities, as the authors' code does, in place of probabilities.
    """

    def __init__(
        self,
        student: Tensor,
        student_pooled: Tensor,
        *,
        alpha: float = 1.0,
        beta: float = 0.1,
        mu: float = 0.005,
        by_log: bool = True,
    ) -> None:
        super().__init__()
        self.weak = nn.Linear(student_pooled.shape[1], student.shape[1])
        self.alpha, self.beta, self.mu, self.by_log = alpha, beta, mu, by_log

    def forward(self, student: Tensor, student_pooled: Tensor, labels: Tensor) -> Tensor:
        """Scalar, of logits [B, K], features [B, D] and labels int64 [B]."""
        return self._of_logits(student, self.weak(student_pooled), labels)

    @in_float64
    def _of_logits(self, student: Tensor, weak: Tensor, labels: Tensor) -> Tensor:
        """Scalar, of the logits of the student and of the weak classifier, [B, K]."""
        is_true = one_hot(labels, student.shape[1])  # [B, K]
        log_student = F.log_softmax(student, 1)
        log_true = (log_student * is_true).sum(1)  # [B]
        with torch.no_grad():
            p_true = log_true.exp()
            target = p_true.square() + 1 - p_true.square().mean()
            ranks = _relative(log_student if self.by_log else log_student.exp(), is_true)
            ranks = ranks + _relative(F.softmax(weak, 1), is_true)
            zipf = _zipf(ranks, is_true)
        others = student.masked_fill(is_true, lowest(student))
        log_others = F.log_softmax(others, 1).masked_fill(is_true, 0)
        weak_loss = F.cross_entropy(weak, labels, label_smoothing=0.1)
        return (
            -self.alpha * (target * log_true).mean()
            - self.beta * (zipf * log_others).sum(1).mean()
            + self.mu * weak_loss
        )


def _relative(values: Tensor, is_true: Tensor) -> Tensor:
    """To one minus that of the true class; [B, K] -> [B, K]."""
    return values / (1 - (values * is_true).sum(1, keepdim=True) + 1e-6)


def _zipf(scores: Tensor, is_true: Tensor) -> Tensor:
    """Probabilities in proportion to 1 / rank by falling score, 0 for the true class; [B, K] -> [B, K]."""
    shares = ~is_true / (scores.argsort(1, descending=True).argsort(1) + 1).to(scores.dtype)
    return shares / shares.sum(1, keepdim=True).clamp(min=1 / shares.shape[1])  # there are none in one class
