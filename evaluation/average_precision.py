"""Average precision, precision, recall and F1 of multi-label scores. N images, C classes, P positives of a class.

Targets are 1 (present), 0 (absent) or -1 (ignored: VOC's difficult objects); `np.abs` of them counts ignored labels as
present. A score that is NaN counts as the lowest. No result depends on the order of the images.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

KINDS = ("step", "positives", "voc", "voc07")
SKIPS_IGNORED = ("voc", "voc07")


def average_precision(scores: np.ndarray, targets: np.ndarray, kind: str = "step") -> np.ndarray:
    """The average precision of each class, 0 to 1, float64 [C]; NaN for a class without positives.

    Let p_j be the precision at the j-th positive of a class, by falling score: the share of positives among the images
    down to it. Negatives of the same score stand before it. What is averaged is, by ``kind``:

    `step`
        The mean of p_j over the positives, where those of one score share the p of the last of them: the area under
        the curve of steps, as scikit-learn's `average_precision_score`. L2D has it. Ignored labels are positives.
    `positives`
        The mean of p_j over the positives: `step`, but for ties. LSHFM and CPSD have it; they leave ties to chance.
        Ignored labels are positives.
    `voc`
        The mean of max_{i >= j} p_i over the positives: the area under the interpolated curve, VOC 2010 and later
        (Everingham et al., IJCV 2015). Ignored labels are skipped.
    `voc07`
        The mean of max_{i >= rP} p_i over the recalls r = 0, 0.1, ..., 1: VOC 2007 to 2009 (Everingham et al., IJCV
        2010, section 4.2). Ignored labels are skipped. r is exact here; the devkit's is rounded.

    Args:
        scores: [N, C], logits or probabilities.
        targets: [N, C].
        kind: one of `KINDS`.
    """
    assert kind in KINDS, kind
    result = np.full(scores.shape[1], np.nan)
    columns = zip(np.ascontiguousarray(_without_nan(scores).T), np.ascontiguousarray(targets.T))
    for number, (column, known) in enumerate(columns):  # [N] each
        positives = np.sort(column[known == 1 if kind in SKIPS_IGNORED else known != 0])  # [P]
        if len(positives):
            result[number] = _of_class(positives, np.sort(column[known == 0]), kind)
    return result


def _of_class(positives: np.ndarray, negatives: np.ndarray, kind: str) -> float:
    """The average precision of a class, from its rising scores [P] and [negatives]."""
    count, falling = len(positives), positives[::-1]
    wrong = len(negatives) - np.searchsorted(negatives, falling)  # negatives that are not below each positive, [P]
    right = count - np.searchsorted(positives, falling) if kind == "step" else np.arange(1, count + 1)  # [P]
    precision = right / (right + wrong)
    return interpolated(precision, count, kind) if kind in SKIPS_IGNORED else float(precision.mean())


def interpolated(precision: np.ndarray, count: int, kind: str) -> float:
    """The average precision `voc` or `voc07` of a class, 0 to 1.

    Args:
        precision: at each of the positives that are found, by falling score, [F]; 0 at those that are not.
        count: P positives, found or not; at least 1.
        kind: which.
    """
    highest = np.zeros(count)
    highest[: len(precision)] = np.maximum.accumulate(precision[::-1])[::-1]
    if kind == "voc07":
        reached = -(-np.arange(11) * count // 10)  # the number of positives that makes each recall, [11]
        highest = highest[np.maximum(reached, 1) - 1]
    return float(highest.mean())


@dataclass(frozen=True)
class Counts:
    """How many labels of each class are present, predicted, and both; int64 [C] each.

    A ratio of nothing to nothing is 0: the precision of a class that is never predicted, the recall of one that is
    never present, F1 where both are 0.
    """

    present: np.ndarray
    predicted: np.ndarray
    right: np.ndarray

    @property
    def precision(self) -> np.ndarray:
        """Of each class, 0 to 1, float64 [C]."""
        return self.right / np.maximum(self.predicted, 1)

    @property
    def recall(self) -> np.ndarray:
        """Of each class, 0 to 1, float64 [C]."""
        return self.right / np.maximum(self.present, 1)

    @property
    def f1(self) -> np.ndarray:
        """Of each class, 0 to 1, float64 [C]."""
        return 2 * self.right / np.maximum(self.present + self.predicted, 1)

    def summary(self) -> dict[str, float]:
        """CP, CR, CF1, OP, OR, OF1, 0 to 1.

        CP and CR are the means of precision and recall over the classes that are present somewhere (0 without any),
        and OP and OR those of the labels of all classes together. CF1 is the harmonic mean of CP and CR, as OF1 is of
        OP and OR. L2D's CF1 is another, the mean of `f1` over all classes.
        """
        some = self.present > 0
        precision, recall = (values[some].sum() / max(some.sum(), 1) for values in (self.precision, self.recall))
        whole = Counts(*(values.sum(keepdims=True) for values in (self.present, self.predicted, self.right)))
        per_class = {"CP": precision, "CR": recall, "CF1": 2 * precision * recall / ((precision + recall) or 1)}
        overall = {"OP": whole.precision[0], "OR": whole.recall[0], "OF1": whole.f1[0]}
        return {name: float(value) for name, value in {**per_class, **overall}.items()}


def count(predicted: np.ndarray, targets: np.ndarray) -> Counts:
    """The counts of predictions, bool [N, C], for targets [N, C]; ignored labels are skipped."""
    present = targets == 1
    return Counts(present.sum(0), (predicted & (targets >= 0)).sum(0), (predicted & present).sum(0))


def highest(scores: np.ndarray, number: int) -> np.ndarray:
    """The ``number`` highest scores of each image, bool [N, C]; of equal ones the earlier classes."""
    chosen = np.argsort(-_without_nan(scores), axis=1, kind="stable")[:, :number]
    mask = np.zeros(scores.shape, bool)
    np.put_along_axis(mask, chosen, True, 1)
    return mask


def oracle(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """The k highest scores of each image, k being the number of its classes in the ground truth, bool [N, C].

    L2D's predictions (Yang et al., ICCV 2023). They use the ground truth, so their F1 is not what a user of the network
    gets. Scores that equal the one below the k highest are left out; where all classes are present, all are chosen.
    """
    scores = _without_nan(scores)
    present = (targets == 1).sum(1)[:, None]  # k, [N, 1]
    rising, classes = np.sort(scores, axis=1), scores.shape[1]
    border = np.take_along_axis(rising, np.maximum(classes - 1 - present, 0), 1)  # the (k + 1)-th highest, [N, 1]
    return (scores > border) | (present == classes)


def _without_nan(scores: np.ndarray) -> np.ndarray:
    return np.where(np.isnan(scores), -np.inf, scores)
