"""Multi-label classification. B samples of a batch, N of a split, C classes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from evaluation.average_precision import KINDS, SKIPS_IGNORED, average_precision, count, highest, oracle
from evaluation.class_table import Row, mean, table, write_table
from evaluation.contract import Metrics, check_seen
from evaluation.voc_files import image_ids, write_results
from utils.distributed import gather

if TYPE_CHECKING:
    from dataset.feed.batch import Batch
    from models.outputs import Outputs


class _Seen(NamedTuple):
    samples: np.ndarray  # int64 [N], rising
    logits: np.ndarray  # float32 [N, C]
    targets: np.ndarray  # int8 [N, C]


class MultiLabel(Metrics):
    """Average precision, precision, recall and F1 in percent and the mean loss, over the samples of all ranks.

    Ranked are the logits in float32, for a sigmoid in half precision makes unequal ones equal. A NaN counts as the
    lowest and is no prediction; the loss is NaN then. All is bit for bit the same for any order of the samples and any
    split over ranks. In `compute` each rank holds them all: 5 N C bytes, 16 MB for COCO's validation split.

    Args:
        device: where they are kept until then.
        classes: C names.
        threshold: of the sigmoid, from which a class is predicted.
        average_precision: the kind that mAP is of, one of `evaluation.average_precision.KINDS`. With `voc` and `voc07`
            every score skips ignored labels; with `step` and `positives` they count as present.
    """

    def __init__(
        self,
        device: torch.device,
        classes: Sequence[str],
        *,
        threshold: float = 0.5,
        average_precision: str = "step",
    ) -> None:
        self._device, self._classes, self._kind = device, classes, average_precision
        self._border = torch.tensor(threshold, dtype=torch.float64).logit().item()
        self._parts: list[tuple[Tensor, Tensor, Tensor]] = []  # of this rank: index, logits, targets of each batch
        self._seen: _Seen | None = None  # of all ranks

    @torch.no_grad()
    def add(self, outputs: Outputs, batch: Batch) -> None:
        """Add logits [B, C] for targets `present` [B, C] in {1, 0, -1}; no sample may stand on two ranks."""
        kept = ((batch.index, torch.int64), (outputs.logits, torch.float32), (batch.targets["present"], torch.int8))
        index, logits, targets = (tensor.to(self._device, kind, copy=True) for tensor, kind in kept)
        self._parts.append((index, logits, targets))

    def compute(self) -> dict[str, float]:
        """mAP, CF1, OF1, CP, CR, OP, OR, CF1_top3, OF1_top3, CF1_oracle, OF1_oracle, loss, images.

        Classes without positives are left out of mAP, CP and CR; mAP is NaN where no class has any. CF1_top3 and
        OF1_top3 are of those predictions that are among the three highest scores of their image; CF1_oracle and
        OF1_oracle, L2D's scores, of as many as the image has positives, which knows the answer, and its CF1 is the mean
        of the classes' F1. The loss is the mean binary cross-entropy.

        Raises:
            DataError: there is not one image; on every rank.
        """
        here = [tuple(torch.cat(tensors).cpu().numpy() for tensors in zip(*self._parts))] if self._parts else []
        parts = [part for rank in gather(here) for part in rank]
        check_seen(sum(len(index) for index, _, _ in parts))
        index, logits, targets = map(np.concatenate, zip(*parts))
        order = np.argsort(index, kind="stable")
        self._seen = seen = _Seen(index[order], logits[order], targets[order])
        precisions = average_precision(seen.logits, seen.targets, self._kind)
        known, predicted = self._known(seen.targets), self._predicted(seen.logits)
        scores = count(predicted, known).summary()
        top3 = count(predicted & highest(seen.logits, 3), known).summary()
        shares = {"mAP": mean(precisions), **{name: scores[name] for name in ("CF1", "OF1", "CP", "CR", "OP", "OR")}}
        shares |= {f"{name}_top3": top3[name] for name in ("CF1", "OF1")}
        best = count(oracle(seen.logits, known), known)
        shares |= {"CF1_oracle": float(best.f1.mean()), "OF1_oracle": best.summary()["OF1"]}
        percent = {name: 100 * share for name, share in shares.items()}
        return {**percent, "loss": _cross_entropy(seen.logits, known), "images": len(order)}

    def rows(self) -> list[Row]:
        """A row a class, after `compute`; the last one has the means over the classes, which it counts in its name.

        Columns: class; positives and ignored, numbers of images; AP of each kind, that of mAP first; precision, recall
        and F1 at the threshold. AP, precision, recall and F1 are percent, and None for a class without positives, which
        is left out of the means.
        """
        seen = self._after_compute()
        counts = count(self._predicted(seen.logits), self._known(seen.targets))
        kinds = sorted(KINDS, key=lambda kind: kind != self._kind)
        shares = {f"AP_{kind}": average_precision(seen.logits, seen.targets, kind) for kind in kinds}
        for name, values in (("precision", counts.precision), ("recall", counts.recall), ("F1", counts.f1)):
            shares[name] = np.where(counts.present > 0, values, np.nan)
        numbers = {"positives": (seen.targets == 1).sum(0), "ignored": (seen.targets == -1).sum(0)}
        return table(self._classes, numbers, shares, int(np.isfinite(shares[f"AP_{self._kind}"]).sum()))

    def write(self, folder: Path) -> None:
        """Write `per_class.csv`: what `rows` gives, for people, spreadsheets and `figures.per_class`.

        Raises:
            DataError: the disk is full or cannot be written.
        """
        write_table(folder / "per_class.csv", self.rows())

    def write_predictions(self, folder: Path, keys: Sequence[str]) -> None:
        """Write the logits to `results/comp1_cls_test_<class>.txt`, as VOC's devkit reads them.

        Args:
            folder: where `results` comes to stand.
            keys: of the samples, by their index; where there are none, the index stands for the image.

        Raises:
            DataError: the disk is full or cannot be written.
        """
        seen, names = self._after_compute(), image_ids(keys)
        ids = [names[sample] if names else str(sample) for sample in seen.samples]
        write_results(folder / "results", self._classes, ids, seen.logits)

    def _after_compute(self) -> _Seen:
        assert self._seen is not None, "compute() first"
        return self._seen

    def _known(self, targets: np.ndarray) -> np.ndarray:
        """Targets [N, C] in which ignored labels are what the kind of average precision makes them."""
        return targets if self._kind in SKIPS_IGNORED else np.abs(targets)

    def _predicted(self, logits: np.ndarray) -> np.ndarray:
        """Whether the sigmoid reaches the threshold, [N, C]."""
        return logits >= self._border


def _cross_entropy(logits: np.ndarray, targets: np.ndarray) -> float:
    """The mean binary cross-entropy of the labels [N, C] that are not ignored."""
    wrong = np.where(targets == 1, -logits, logits)[targets >= 0].astype(np.float64)  # the loss is the softplus of it
    return float((np.maximum(wrong, 0) + np.log1p(np.exp(-np.abs(wrong)))).mean())
