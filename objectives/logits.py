"""Objectives on logits. B samples, K classes; z_s and z_t are the logits of student and teacher."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from objectives.contract import objective

_EPSILON = 1e-7  # in the denominator of WSLD's weight, as its authors' code has it


@objective(reads="logits")
def kd(student: Tensor, teacher: Tensor, *, temperature: float = 4.0) -> Tensor:
    """Knowledge distillation: T^2 KL(softmax(z_t / T) || softmax(z_s / T)), averaged over the batch.

    Hinton et al., 2015, arXiv 1503.02531, section 2.

    Args:
        student: logits [B, K].
        teacher: logits [B, K].
        temperature: T.

    Returns:
        Scalar.
    """
    log_p_student = F.log_softmax(student / temperature, dim=1)  # [B, K]
    log_p_teacher = F.log_softmax(teacher / temperature, dim=1)
    return temperature**2 * F.kl_div(log_p_student, log_p_teacher, reduction="batchmean", log_target=True)


@objective(reads="logits")
def wsld(student: Tensor, teacher: Tensor, labels: Tensor, *, temperature: float = 2.0) -> Tensor:
    """Weighted soft labels: each sample's soft cross-entropy, weighted down where the student is ahead of the teacher.

    w = 1 - exp(-CE(z_s, y) / CE(z_t, y)), at temperature 1 and without a gradient;
    loss = mean over the batch of w T^2 (-sum_k softmax(z_t / T)_k log softmax(z_s / T)_k).

    Zhou et al., ICLR 2021, arXiv 2102.00650, the weighted soft labels of section 4. The authors train with
    cross-entropy + 2.5 wsld at T = 2. The soft term is a cross-entropy, as in their code: it exceeds the KL divergence
    of `kd` by the teacher's entropy and has the same gradient.

    Args:
        student: logits [B, K].
        teacher: logits [B, K].
        labels: int64 [B].
        temperature: T.

    Returns:
        Scalar.
    """
    p_teacher = F.softmax(teacher / temperature, dim=1)  # [B, K]
    log_p_student = F.log_softmax(student / temperature, dim=1)
    soft = -(p_teacher * log_p_student).sum(1)  # [B]
    return temperature**2 * (wsld_weights(student, teacher, labels) * soft).mean()


@torch.no_grad()
def wsld_weights(student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
    """The sample weights w of `wsld`, in [0, 1]; [B]."""
    student_loss = F.cross_entropy(student, labels, reduction="none")  # [B]
    teacher_loss = F.cross_entropy(teacher, labels, reduction="none")
    return -torch.expm1(-student_loss / (teacher_loss + _EPSILON))
