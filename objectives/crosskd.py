"""Cross-head distillation of one-stage detectors. B images, A anchors, L locations, K classes."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from objectives.contract import NOT_NEGATIVE, objective

_LEAST = 1e-6  # of areas, square pixels


@objective(reads="towers", logits="dense", box_weight=NOT_NEGATIVE)
def crosskd(
    teacher_cross_logits: Tensor,
    teacher_cross_boxes: Tensor,
    teacher_logits: Tensor,
    teacher_dense_boxes: Tensor,
    student_usable: Tensor,
    student_positives: Tensor,
    *,
    box_weight: float = 1.0,
) -> Tensor:
    """What the teacher's heads predict from the student's towers, compared with what they predict from the teacher's.

    Wang et al., CVPR 2024, arXiv 2306.11369, section 3. Classes by the quality focal loss of exponent 1, binary
    cross-entropy times the distance |p_s - p_t| of the probabilities (Li et al., NeurIPS 2020, arXiv 2006.04388); plus
    ``box_weight`` times one minus the generalised IoU of the boxes (Rezatofighi et al., CVPR 2019, arXiv 1902.09630),
    each times the teacher's highest probability there. Both are summed over anchors and divided by the number of those
    that have an object. Published for RetinaNet and ATSS: weights 1; for FCOS, where its code has the logarithm of the
    IoU, classes with weight 0.4 and boxes with 0.75.

    Args:
        teacher_cross_logits: [B, A, K + 1], from the student's towers; column 0 is no class.
        teacher_cross_boxes: [B, A, 4], likewise: x1, y1, x2, y2 in pixels.
        teacher_logits: [B, A, K + 1], from the teacher's own.
        teacher_dense_boxes: [B, A, 4], likewise.
        student_usable: bool [B, L], locations whose anchors count.
        student_positives: scalar above 0, anchors of the batch that learn from an object, on the average over ranks.
        box_weight: of the boxes beside the classes.

    Returns:
        Scalar.

    Raises:
        ValueError: the anchors or classes are not as many.
    """
    if teacher_cross_logits.shape != teacher_logits.shape:
        raise ValueError(
            f"crosskd compares logits of the same anchors and classes, not {list(teacher_cross_logits.shape)} from the "
            f"student's towers and {list(teacher_logits.shape)} from the teacher's"
        )
    ours, theirs = teacher_cross_logits[..., 1:], teacher_logits[..., 1:]
    classes = (_distance(ours, theirs) * _cross_entropy(ours, theirs)).sum(2)  # [B, A]
    overlap = generalized_iou(teacher_cross_boxes, teacher_dense_boxes)
    boxes = theirs.amax(2).sigmoid() * (1 - overlap)  # [B, A]
    of_locations = (classes + box_weight * boxes).unflatten(1, (student_usable.shape[1], -1)).sum(2)  # [B, L]
    return (of_locations * student_usable).sum() / student_positives


def _cross_entropy(x: Tensor, y: Tensor) -> Tensor:
    """Of sigmoid(x) from sigmoid(y), of equal shapes; its gradient is exact also where both are near 1."""
    return -(y.sigmoid() * F.logsigmoid(x) + (-y).sigmoid() * F.logsigmoid(-x))


def _distance(x: Tensor, y: Tensor) -> Tensor:
    """|sigmoid(x) - sigmoid(y)|, of equal shapes, exact also where they are close or near 0 or 1."""
    return torch.maximum(x, y).sigmoid() * (-torch.minimum(x, y)).sigmoid() * -torch.expm1(-(x - y).abs())


def generalized_iou(one: Tensor, other: Tensor) -> Tensor:
    """IoU less the share of the smallest box around both that neither covers; [..., 4] each -> [...], -1 to 1."""
    overlap = _area(torch.cat([torch.maximum(one, other)[..., :2], torch.minimum(one, other)[..., 2:]], -1))
    around = _area(torch.cat([torch.minimum(one, other)[..., :2], torch.maximum(one, other)[..., 2:]], -1))
    union = _area(one) + _area(other) - overlap
    return overlap / union.clamp(min=_LEAST) - (around - union) / around.clamp(min=_LEAST)


def _area(boxes: Tensor) -> Tensor:
    """[..., 4] -> [...]; 0 where a side is negative."""
    width, height = (boxes[..., 2:] - boxes[..., :2]).clamp(min=0).unbind(-1)
    return width * height
