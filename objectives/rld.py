"""Refined logit distillation: the labels tell what of the teacher's logits is wrong. B samples, K classes."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from objectives.contract import NOT_NEGATIVE, POSITIVE, objective
from objectives.logits import divergence, lowest, one_hot, split
from objectives.numerics import in_float64


@objective(reads="logits", alpha=NOT_NEGATIVE, beta=NOT_NEGATIVE, temperature=POSITIVE)
@in_float64
def rld(
    student: Tensor,
    teacher: Tensor,
    labels: Tensor,
    *,
    alpha: float = 1.0,
    beta: float = 8.0,
    temperature: float = 4.0,
) -> Tensor:
    """Refined logits: T^2 (alpha KL of the confidence + beta KL among the classes that the teacher ranks below).

    The confidence is (p, 1 - p), of the teacher's first class and of the student's true class. The other part leaves
    out the true class and all that the teacher gives as much or more: none are compared where it ranks the true class
    last. Averaged over the batch; where the teacher is right it is `dkd`. Sun et al., ICCV 2025, arXiv 2408.07703, its
    sample confidence and masked correlation. The authors choose alpha and beta by pair: on ImageNet T = 1, beta 0.5
    (R34 to R18) or 2 (R50 to MobileNetV1); on CIFAR-100 T = 4, growing over 20 epochs. Their code can give each part a
    temperature of its own: two terms, one with alpha 0 and one with beta 0.

    Args:
        student: logits [B, K].
        teacher: logits [B, K].
        labels: int64 [B].
        alpha: weight of the confidence.
        beta: weight of the classes below.
        temperature: T.

    Returns:
        Scalar.
    """
    ours, theirs = student / temperature, teacher / temperature
    sure_student, _ = split(ours, one_hot(labels, student.shape[1]))
    sure_teacher, _ = split(theirs, one_hot(teacher.argmax(1), student.shape[1]))
    left_out = teacher >= teacher.gather(1, labels[:, None])  # [B, K]
    below_student, below_teacher = (
        F.log_softmax(z.masked_fill(left_out, lowest(z)), 1)  # [B, K]
        for z in (ours, theirs)
    )
    loss = alpha * divergence(sure_teacher, sure_student) + beta * divergence(below_teacher, below_student)
    return temperature**2 * loss.mean()
