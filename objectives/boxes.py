"""Objectives of detectors on losses and box heads. R regions of a batch, K classes without background."""

from __future__ import annotations

from torch import Tensor

from objectives.contract import NOT_NEGATIVE, objective

_PARTS = ("classes", "boxes", "centerness", "objectness", "proposals")


@objective(reads="losses", logits="any")
def detection(student: Tensor, *, part: str = "all") -> Tensor:
    """The detector's own losses, as its paper and torchvision have them.

    Args:
        student: [5], of classes, boxes, centerness (FCOS), objectness and proposals (two-stage); 0 where there is none.
        part: one of these; `all` is their sum.

    Returns:
        Scalar.

    Raises:
        ValueError: the part is another one.
    """
    if part == "all":
        return student.sum()
    if part not in _PARTS:
        raise ValueError(f"part={part}: all, or one of {', '.join(_PARTS)}")
    return student[_PARTS.index(part)]


@objective(reads="box_deltas", margin=NOT_NEGATIVE)
def box_regression(
    student: Tensor,
    teacher: Tensor,
    student_labels: Tensor,
    student_box_targets: Tensor,
    *,
    bounded: bool = False,
    margin: float = 0.0,
) -> Tensor:
    """Squared distance of the boxes that are predicted for the true class, of regions with an object, over all regions.

    So the head's own loss of boxes is divided too (Girshick, ICCV 2015, arXiv 1504.08083). Boxes are as the heads give
    them: four encoded offsets from the region. ``bounded`` is the teacher bounded
    regression of Chen et al., NeurIPS 2017, Learning efficient object detection models with knowledge distillation,
    section 3.3: the squared distance |s - y|^2 from the true box y, of those regions alone where |s - y|^2 + margin >
    |t - y|^2. The student is held to be no worse than the teacher, and is not drawn to it. Published beside the
    detector's own losses with weight 0.5.

    Args:
        student: [R, K + 1, 4].
        teacher: of the same regions, likewise.
        student_labels: int64 [R], 0 for background.
        student_box_targets: [R, 4], the true boxes, encoded.
        bounded: see above.
        margin: by how much, squared, the student is to be better.

    Returns:
        Scalar; 0 where no region has an object.

    Raises:
        ValueError: the classes are not as many.
    """
    if student.shape != teacher.shape:
        raise ValueError(
            f"box_regression compares boxes of the same regions and classes, not {list(student.shape)} and "
            f"{list(teacher.shape)}"
        )
    ours, theirs = (_of_class(x, student_labels) for x in (student, teacher))  # [R, 4]
    if bounded:
        error, allowed = ((x - student_box_targets).square().sum(1) for x in (ours, theirs))
        losses = error * (error + margin > allowed)
    else:
        losses = (ours - theirs).square().sum(1)
    return (losses * (student_labels > 0)).sum() / max(len(losses), 1)


def _of_class(deltas: Tensor, labels: Tensor) -> Tensor:
    """[R, K + 1, 4], int64 [R] -> [R, 4]."""
    return deltas.gather(1, labels[:, None, None].expand(-1, 1, 4)).squeeze(1)
