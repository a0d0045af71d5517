"""Distillation of label-wise embeddings: one vector a class and image. B samples, C classes, D dimensions."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from objectives.contract import NOT_NEGATIVE, objective

_NEAR = 1e-12  # squared distances up to this or to rounding count as this, with no gradient, as the authors have it
_ROUNDING = 16  # of products of vectors, in units of the precision


@objective(reads="label_embeddings", summed=True, class_aware=NOT_NEGATIVE, instance_aware=NOT_NEGATIVE)
def label_embeddings(
    student: Tensor,
    teacher: Tensor,
    present: Tensor,
    *,
    class_aware: float = 100.0,
    instance_aware: float = 1000.0,
) -> Tensor:
    """The distances of a class's embeddings in the images that show it, and of an image's embeddings of its classes.

    Smooth L1 of the distances of every two, each divided by their mean, summed over ordered pairs and divided by the
    number of embeddings; class-aware, summed over classes, and instance-aware, summed over images. Yang et al., L2D,
    ICCV 2023, arXiv 2308.06453, the label-wise part; the sums and the two weights are those of the authors' code, where
    its own weight is 1. It grows with the batch and with the number of classes, and needs a memory of B C (B + C)
    numbers. Student and teacher need no common space.

    Args:
        student: [B, C, D_s].
        teacher: [B, C, D_t].
        present: int8 [B, C], 0 for absent; present is 1, and -1.
        class_aware: weight of the relations within a class.
        instance_aware: weight of those within an image.

    Returns:
        Scalar; two embeddings have no relations, for their distance is the mean.
    """
    positive = present != 0  # [B, C]
    by_class = _relations(student.transpose(0, 1), teacher.transpose(0, 1), positive.T)
    return class_aware * by_class + instance_aware * _relations(student, teacher, positive)


def _relations(student: Tensor, teacher: Tensor, member: Tensor) -> Tensor:
    """Of the members of each of G groups, summed over groups; [G, N, D_s], [G, N, D_t], bool [G, N] -> scalar."""
    other = ~torch.eye(member.shape[1], dtype=torch.bool, device=member.device)
    is_pair = member[:, :, None] & member[:, None] & other  # [G, N, N]
    size = member.sum(1).clamp(min=1)  # [G]
    shares = member[:, None].to(student) / size[:, None, None]  # [G, 1, N]
    # Distances stay when the mean of the members is taken away, and round less.
    ours, theirs = (_relative_distances(x - shares @ x.detach(), is_pair) for x in (student, teacher))
    return (F.smooth_l1_loss(ours, theirs, reduction="none").sum((1, 2)) / size).sum()


def _relative_distances(x: Tensor, is_pair: Tensor) -> Tensor:
    """Over the mean of their group's, 0 for no pair; [G, N, D] -> [G, N, N]."""
    products = x @ x.mT
    squares = products.diagonal(dim1=1, dim2=2)  # [G, N]
    scale = squares[:, :, None] + squares[:, None]
    squared = scale - 2 * products
    near = squared <= (_ROUNDING * torch.finfo(x.dtype).eps * scale).clamp(min=_NEAR)
    distances = squared.masked_fill(near | ~is_pair, _NEAR).sqrt() * is_pair
    mean = distances.sum((1, 2)) / is_pair.sum((1, 2)).clamp(min=1)  # [G]
    return distances / mean.clamp(min=_NEAR)[:, None, None]
