"""Whether what was exported gives what the run's student gives, on real images. N images, K classes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from dataset.loader import EvalLoader, open_split
from dataset.store.samples import Samples
from export.student import Student
from models.outputs import FOUND, Outputs, Scene
from tasks import Metrics
from utils.console import progress
from utils.errors import UsageError

LARGEST = 1e-3  # difference of a logit, of the largest logit of the student; of a score; of a box, of the canvas's side
POINTS = 0.5  # difference of the primary score; of fewer than 200 images what one of them counts
OTHERS = 1e-3  # share of detections that may be others: where a rounding decides over a score or an overlap
FEWEST = 2  # of these: one that goes may make room for another

Look = Callable[[Tensor, Scene], Outputs]  # uint8 [B, 3, H, W] and what is known of them


@dataclass
class Compared:
    """What one of the forms of a student gave for the same images.

    Attributes:
        name: of the form.
        scores: of the task.
        difference: the largest of a logit to the student's; of a detector that of a score or, as a share of the longer
            side of the canvas, of an edge of a box, among detections that both have.
        largest: of the student's logits, without sign; 1 of a detector.
        found: of a detector, detections of the student and of this form.
        others: of these, those that only one of both has.
        by_class: int64 [K, 2], of single-label data how many images of each class there are, and were found right.
    """

    name: str
    scores: dict[str, float] = field(default_factory=dict)
    difference: float = 0.0
    largest: float = 0.0
    found: int = 0
    others: int = 0
    by_class: np.ndarray | None = None

    @property
    def share(self) -> float:
        """The difference as a share of the largest logit."""
        return self.difference / max(self.largest, 1e-9)


class Checked(NamedTuple):
    """All of them, the student as it was trained first, and of how many images."""

    compared: list[Compared]
    images: int
    whole: bool  # whether these are all images of the split
    ranked: bool  # whether the score is of neighbours, of whom others are the nearest after a rounding
    detects: bool

    @property
    def allowed(self) -> float:
        """Points by which the primary score may differ."""
        return math.inf if self.ranked else max(POINTS, 100 / max(1, self.images))


def compare(student: Student, forms: Mapping[str, Look], val: Samples, images: int | None = None) -> Checked:
    """What ``student`` and the ``forms`` of it give for validation images, on the CPU, in float32.

    Args:
        student: as it was trained.
        forms: by name.
        val: the validation split.
        images: how many, spread over the split; all when not given.

    Raises:
        DataError: an image cannot be read.
    """
    task = student.settings.made_task()
    looks: dict[str, Look] = {"student": student.network.predict, **forms}
    compared = {name: Compared(name) for name in looks}
    metrics = {name: task.metrics(torch.device("cpu"), val.classes) for name in looks}
    loader = EvalLoader(val, student.settings.data, 0, 1, torch.device("cpu"), task.targets(val.classes))
    with closing(loader):
        chosen = loader.spread(images) if images else loader
        for batch in progress(iterable=chosen, desc="comparing", total=len(chosen), unit="batch"):
            scene = Scene(batch.sizes, batch.targets, batch.index)
            own: Outputs | None = None
            for name, look in looks.items():
                with torch.no_grad():
                    outputs = look(batch.images["weak"], scene)
                metrics[name].add(outputs, batch)
                own = own or outputs
                if task.detects:
                    _note_found(compared[name], outputs, own, max(batch.images["weak"].shape[2:]))
                else:
                    _note(compared[name], outputs.read(student.output), own.read(student.output))
            if student.output == "logits" and "labels" in batch.targets:
                assert own is not None
                _count(compared["student"], own.logits, batch.targets["labels"])
    whole, count = images is None or images >= len(val), min(images or len(val), len(val))
    ranked = student.output != "logits"
    return Checked(_scored(compared, metrics), count, whole, ranked=ranked, detects=task.detects)


def _scored(compared: Mapping[str, Compared], metrics: Mapping[str, Metrics]) -> list[Compared]:
    for name, one in compared.items():
        one.scores = metrics[name].compute()
    return [*compared.values()]


def _note(compared: Compared, given: Tensor, own: Tensor) -> None:
    both_finite = bool(given.isfinite().all()) and given.shape == own.shape
    difference = float((given.float() - own.float()).abs().max()) if both_finite and own.numel() else math.inf
    compared.difference = max(compared.difference, difference if own.numel() else 0.0)
    compared.largest = max(compared.largest, float(own.abs().max()) if own.numel() else 0.0)


def _note_found(compared: Compared, given: Outputs, own: Outputs, side: int) -> None:
    """Each detection of one is the same as the nearest one of the other of its class, or has none there."""
    (boxes, scores, classes), (others, theirs, labels) = ([one.read(name) for name in FOUND] for one in (own, given))
    apart = (boxes[:, :, None] - others[:, None]).abs().amax(3) / side  # [B, D, D]
    apart = torch.maximum(apart, (scores[:, :, None] - theirs[:, None]).abs())
    apart = torch.where(classes[:, :, None] == labels[:, None], apart, torch.inf)
    nearest = torch.cat([apart.amin(2)[classes >= 0], apart.amin(1)[labels >= 0]])
    same = nearest <= LARGEST
    compared.found += len(nearest)
    compared.others += int((~same).sum())
    compared.difference = max([compared.difference, *nearest[same].tolist()])
    compared.largest = 1.0


def _count(compared: Compared, logits: Tensor, labels: Tensor) -> None:
    if compared.by_class is None:
        compared.by_class = np.zeros((logits.shape[1], 2), np.int64)
    labels, logits = labels[labels >= 0], logits[labels >= 0]
    np.add.at(compared.by_class[:, 0], labels.numpy(), 1)
    np.add.at(compared.by_class[:, 1], labels[logits.argmax(1) == labels].numpy(), 1)


def refused(checked: Checked, primary: str, logged: float | None) -> dict[str, str]:
    """Which forms differ from the student by too much, each with the reason; the student itself from what was logged.

    Args:
        checked: as `compare` gives it.
        primary: name of the score that is compared.
        logged: that score as the run logged it; compared where all images of the split were looked at.
    """
    student, *forms = checked.compared
    own, allowed = student.scores[primary], checked.allowed
    reasons = {}
    if checked.whole and logged is not None and abs(own - logged) > allowed:
        reasons[student.name] = f"{primary} {own:.3f}, and the run logged {logged:.3f}"
    for one in forms:
        if one.others > max(FEWEST, OTHERS * one.found):
            reasons[one.name] = (
                f"{one.others:,} of {one.found:,} detections are in one of both alone; at most {100 * OTHERS:g} % are "
                "allowed"
            )
        elif not one.share <= LARGEST:
            reasons[one.name] = f"differs by {one.share:.2g} of the largest value; at most {LARGEST:g} is allowed"
        elif abs(one.scores[primary] - own) > allowed:
            reasons[one.name] = f"{primary} {one.scores[primary]:.3f}, the student's is {own:.3f}"
    return reasons


def rows_of(checked: Checked, primary: str, logged: float | None) -> list[list[str]]:
    """A table of what was compared: its head, then a row a form."""
    value = "-" if logged is None else f"{logged:.3f}"
    first = [["as the run logged it", "-", "-", value]] if checked.whole else []
    head = "others" if checked.detects else "as a share"
    rows = [
        [
            one.name,
            f"{one.difference:.2g}",
            f"{one.others:,} of {one.found:,}" if checked.detects else f"{one.share:.2g}",
            f"{one.scores[primary]:.3f}",
        ]
        for one in checked.compared
    ]
    rows[0][1:3] = "-", "-"  # the student is what the others are compared with
    return [["form", "largest difference", head, primary], *first, *rows]


def validation_split(student: Student, digest: str | None) -> Samples:
    """The validation images that a run was scored on.

    Args:
        student: of the run.
        digest: of these images and labels, as the run noted it.

    Raises:
        UsageError: they are not there, or are others.
        DataError: they are damaged.
    """
    data = student.settings.data
    val = open_split(data, data.val_split, data.val_data_type)
    if digest is not None and val.digest() != digest:
        raise UsageError(
            f"data.data_path={data.data_path}: its {data.val_split} holds other images or labels than the run was "
            "scored on: set data.data_path to those"
        )
    return val


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows with aligned columns."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows)
