"""Boxes of a teacher in place of true ones. B images, M boxes of an image."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from objectives.contract import SHARE, objective

_LEAST = 1  # pixels, of both sides of a box: regions are encoded by the logarithms of these


@objective(reads="losses_on", least_score=SHARE)
def pseudo_boxes(
    student: Callable[[Mapping[str, Tensor]], Tensor],
    teacher_boxes: Tensor,
    teacher_scores: Tensor,
    teacher_classes: Tensor,
    *,
    least_score: float = 0.9,
) -> Tensor:
    """The detector's own losses on what a teacher finds in the same view, as if it were the truth.

    STAC, Sohn et al. 2020, arXiv 2005.04757, section 3.2: detections after non-maximum suppression whose score is
    ``least_score`` or more are objects, and all else is background, in the losses of regions and of proposals alike.
    Published for Faster R-CNN: 0.9, weight 2, on images without boxes of their own, beside the losses on others that
    have some. Boxes alone pass between detectors, of whatever kinds. Scores of RetinaNet and FCOS, which judge each
    class for itself, are lower, and want a lower ``least_score``.

    Differs from STAC: teacher and student see the same view; there the student's is distorted. Boxes less than a pixel
    wide or high, as FCOS may give, are background, too.

    Args:
        student: its losses [5] on targets: `boxes` [B, M, 4], `classes` int64 [B, M] and `learned` int8 [B, M], 1 for
            an object to learn from.
        teacher_boxes: [B, M, 4], pixels of the canvas.
        teacher_scores: [B, M].
        teacher_classes: int64 [B, M], from 0; -1 where there is none.
        least_score: of a detection that is learned.

    Returns:
        Scalar.
    """
    wide = (teacher_boxes[..., 2:] - teacher_boxes[..., :2] >= _LEAST).all(2)
    learned = (teacher_classes >= 0) & (teacher_scores >= least_score) & wide
    return student({"boxes": teacher_boxes, "classes": teacher_classes, "learned": learned.to(torch.int8)}).sum()
