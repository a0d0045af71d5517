"""Objectives that need no teacher. B samples, K classes."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from objectives.contract import objective


@objective(reads="logits")
def cross_entropy(student: Tensor, labels: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
    """Cross-entropy with the true class, averaged over the batch.

    Args:
        student: logits [B, K].
        labels: int64 [B].
        label_smoothing: share of the target spread evenly over all classes (Szegedy et al., CVPR 2016,
            arXiv 1512.00567, section 7).

    Returns:
        Scalar.
    """
    return F.cross_entropy(student, labels, label_smoothing=label_smoothing)
