"""The class that the teacher gives, in place of its probabilities. B samples, K classes."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from objectives.contract import objective
from objectives.numerics import in_float64


@objective(reads="logits")
@in_float64
def hard_label(student: Tensor, teacher: Tensor) -> Tensor:
    """Cross-entropy with the class that the teacher gives, averaged over the batch.

    Touvron et al., ICML 2021, arXiv 2012.12877, equation 3, where it and the cross-entropy with the labels have the
    weight 1/2 each.

    Args:
        student: logits [B, K].
        teacher: logits [B, K].

    Returns:
        Scalar.
    """
    return F.cross_entropy(student, teacher.argmax(1))


@objective(reads="logits")
@in_float64
def distillation_token(student_token: Tensor, teacher: Tensor) -> Tensor:
    """`hard_label` of the second classifier of a student, which a token of its own is behind; the labels are for the
    first.

    Touvron et al., ICML 2021, arXiv 2012.12877, section 4. `student.head.name=distilled` gives timm's
    `deit_*_distilled_*` both classifiers in training; what they are scored by is their average.

    Args:
        student_token: logits [B, K] of that classifier.
        teacher: logits [B, K].

    Returns:
        Scalar.
    """
    return hard_label(student_token, teacher)
