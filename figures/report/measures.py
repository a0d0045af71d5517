"""What can be said of networks by what they give for the images of a bench.

N images, K outputs, C classes, S students of a group (its seeds); O objects of an image, D detections.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from typing import NamedTuple

import numpy as np
import torch
from torch.nn import functional as F
from torchvision.ops import box_iou

from figures.outputs import Detected, Truth
from figures.report.data import Group
from figures.report.seen import Bench

SCORE = 0.5  # from which a detection counts
_OVERLAP = 0.5  # intersection over union from which it may be an object's
_BINS = 10  # of a teacher's probability


class Agreement(NamedTuple):
    """How near students are to their teacher.

    Attributes:
        equal: [S], share of predictions that are the same, of all classes of all images where these have several.
        divergence: [S], mean KL divergence of the student's probabilities from the teacher's, nats, at temperature 1.
        both, student, teacher, none: share of the predictions that are right of both, of one alone, of neither; means
            over the students.
        counts: [_BINS], predictions by the teacher's probability: of its class, or where there are several of each.
        equal_by, divergence_by: [_BINS], means of those; NaN where there are none.
    """

    equal: np.ndarray
    divergence: np.ndarray
    both: float
    student: float
    teacher: float
    none: float
    counts: np.ndarray
    equal_by: np.ndarray
    divergence_by: np.ndarray


class Match(NamedTuple):
    """Of the detections in an image that count, and its objects."""

    hit: np.ndarray  # bool [O], objects that are found
    right: np.ndarray  # bool [D], detections that are of an object, and so of none that is hit already
    shown: np.ndarray  # bool [D], detections that count


def logits_of(bench: Bench, group: Group) -> list[np.ndarray]:
    """[N, K] of each student."""
    return [bench.logits[bench.students[run.path]] for run in group.runs if run.path in bench.students]


def wrong(bench: Bench, logits: np.ndarray) -> np.ndarray:
    """Which predictions are: bool [N], or [N, C] of several labels an image, where those to be ignored never are."""
    if bench.task == "single_label":
        return logits.argmax(1) != bench.labels
    return (_present(bench, logits) != (bench.labels == 1)) & (bench.labels >= 0)


def losses(bench: Bench, logits: np.ndarray) -> np.ndarray:
    """Cross-entropy with the labels, [N]; binary, and summed over the classes, of several an image."""
    z = torch.from_numpy(logits)
    if bench.task == "single_label":
        return F.cross_entropy(z, torch.from_numpy(bench.labels), reduction="none").numpy()
    known = torch.from_numpy(bench.labels >= 0)
    present = torch.from_numpy((bench.labels == 1).astype(np.float32))
    z = z[:, : present.shape[1]]
    return (F.binary_cross_entropy_with_logits(z, present, reduction="none") * known).sum(1).numpy()


def recalls(bench: Bench, logits: np.ndarray) -> np.ndarray:
    """Share of the images of each class that are classified right, percent, [C]; NaN of classes without images."""
    images = np.bincount(bench.labels, minlength=len(bench.classes))
    right = np.bincount(bench.labels[logits.argmax(1) == bench.labels], minlength=len(bench.classes))
    return np.where(images > 0, 100 * right / np.maximum(images, 1), np.nan)


def confusion(bench: Bench, students: Sequence[np.ndarray]) -> np.ndarray:
    """Predictions of all students together by true class and output, int64 [C, K]."""
    counts = np.zeros((len(bench.classes), students[0].shape[1]), np.int64)
    for logits in students:
        np.add.at(counts, (bench.labels, logits.argmax(1)), 1)
    return counts


def agreement(bench: Bench, students: Sequence[np.ndarray], teacher: np.ndarray) -> Agreement:
    """Of students with a teacher of the same outputs, each [N, K]."""
    t = torch.from_numpy(teacher).double()
    single = bench.task == "single_label"
    if single:
        sure = t.softmax(1).amax(1).numpy()  # [N]
    else:
        t = t[:, : len(bench.classes)]
        sure = t.sigmoid().numpy()  # [N, C]
    bins = np.minimum((sure * _BINS).astype(int), _BINS - 1).ravel()
    counts = np.bincount(bins, minlength=_BINS)
    teacher_wrong = wrong(bench, teacher)
    equal, divergence, shares = [], [], []
    for logits in students:
        s = torch.from_numpy(logits).double()
        if single:
            same = logits.argmax(1) == teacher.argmax(1)
            apart = F.kl_div(s.log_softmax(1), t.log_softmax(1), reduction="none", log_target=True).sum(1)
        else:
            s = s[:, : t.shape[1]]
            same = _present(bench, logits) == _present(bench, teacher)
            there, absent = t.sigmoid(), (-t).sigmoid()
            apart = there * (F.logsigmoid(t) - F.logsigmoid(s)) + absent * (F.logsigmoid(-t) - F.logsigmoid(-s))
        equal.append(same.ravel())
        divergence.append(apart.numpy().ravel())
        mine = wrong(bench, logits)
        pairs = ((False, False), (False, True), (True, False), (True, True))
        shares.append([((mine == a) & (teacher_wrong == b)).mean() for a, b in pairs])
    both, student, alone, none = np.mean(shares, axis=0).tolist()
    means = [np.bincount(bins, np.mean(one, axis=0), _BINS) / np.maximum(counts, 1) for one in (equal, divergence)]
    equal_by, divergence_by = (np.where(counts > 0, one, np.nan) for one in means)
    each = np.mean(equal, axis=1), np.mean(divergence, axis=1)
    return Agreement(*each, both, student, alone, none, counts, equal_by, divergence_by)


def missed(bench: Bench, groups: Sequence[Group], count: int) -> list[int]:
    """Places of at most ``count`` images on which students of the groups are worse than their teachers, by turns those
    of each group, the worst ones first. A group without a teacher is compared with that of the first group that has
    one; where there is none at all, the greatest losses come first.
    """
    first = next((group for group in groups if bench.teachers[group.first.path]), groups[0])
    worst = [_worst(bench, group, group if bench.teachers[group.first.path] else first) for group in groups]
    by_turns = (place for turn in zip_longest(*worst) for place in turn if place is not None)
    return list(dict.fromkeys(by_turns))[:count]


def _worst(bench: Bench, group: Group, taught: Group) -> list[int]:
    """Places where the students of a group are worse than the teacher of another, the worst one first."""
    if bench.task == "detection":
        return _worst_found(bench, group, taught)
    students = logits_of(bench, group)
    mistaken = np.mean([wrong(bench, one) for one in students], axis=0) >= 0.5
    loss = np.mean([losses(bench, one) for one in students], axis=0)
    teacher = bench.taught_by(taught.first)
    if teacher is not None:
        mistaken &= ~wrong(bench, teacher)
        loss = loss - losses(bench, teacher)
    some = mistaken if mistaken.ndim == 1 else mistaken.any(1)
    return [int(place) for place in np.argsort(-loss, kind="stable") if some[place]]


def _worst_found(bench: Bench, group: Group, taught: Group) -> list[int]:
    """By the objects that the first student does not find and the teacher does, less those the other way round."""
    teachers = list(bench.teachers[taught.first.path].values())
    student = bench.found[bench.students[group.first.path]]
    lost = []
    for place, truth in enumerate(bench.truth):
        mine = matched(truth, student[place])
        if teachers:
            lost.append(int(matched(truth, bench.found[teachers[0]][place]).hit.sum()) - int(mine.hit.sum()))
        else:
            lost.append(int((~mine.hit & ~truth.ignored).sum()) + int((mine.shown & ~mine.right).sum()))
    return [int(place) for place in np.argsort(-np.array(lost), kind="stable") if lost[place] > 0]


def matched(truth: Truth, found: Detected) -> Match:
    """Detections and objects of one class that overlap, the surest detection first; those of an object that is not
    scored count for nothing.
    """
    hit, right, shown = np.zeros(len(truth.boxes), bool), np.zeros(len(found.boxes), bool), found.scores >= SCORE
    if not len(truth.boxes) or not shown.any():
        return Match(hit, right, shown)
    overlaps = box_iou(torch.from_numpy(found.boxes), torch.from_numpy(truth.boxes)).numpy()  # [D, O]
    overlaps[found.classes[:, None] != truth.classes] = 0
    for place in np.flatnonzero(shown):
        free = np.where(hit & ~truth.ignored, 0, overlaps[place])
        best = int(free.argmax())
        if free[best] >= _OVERLAP:
            if truth.ignored[best]:
                shown[place] = False
            else:
                hit[best] = right[place] = True
    return Match(hit, right, shown)


def _present(bench: Bench, logits: np.ndarray) -> np.ndarray:
    """Which classes are predicted, bool [N, C]."""
    return torch.from_numpy(logits[:, : len(bench.classes)]).sigmoid().numpy() >= bench.threshold
