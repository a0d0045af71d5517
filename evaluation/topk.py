"""Single-label classification. B samples, K classes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

from dataset.store.record import UNLABELLED
from evaluation.contract import Metrics, check_seen
from utils.distributed import all_sum

if TYPE_CHECKING:
    from dataset.feed.batch import Batch
    from models.outputs import Outputs


class TopK(Metrics):
    """Top-1 and top-5 accuracy in percent and the mean cross-entropy, over the samples of all ranks.

    All are nan where no sample has a label: nothing says then which student is the best, and it is the last.

    Args:
        device: where they are added up.
    """

    def __init__(self, device: torch.device) -> None:
        self._sums = torch.zeros(5, dtype=torch.float64, device=device)  # top-1, top-5, loss, with a label, images

    @torch.no_grad()
    def add(self, outputs: Outputs, batch: Batch) -> None:
        """Add logits [B, K] for labels [B], which are -1 where there are none; no sample may stand on two ranks."""
        logits, labels = outputs.logits.float(), batch.targets["labels"]
        ranked = logits.topk(min(5, logits.shape[1]), dim=1).indices == labels[:, None]  # [B, 5]
        loss = F.cross_entropy(logits, labels, ignore_index=UNLABELLED, reduction="none").double()
        images = torch.tensor(len(labels), device=labels.device)
        labelled = (labels != UNLABELLED).sum()
        self._sums += torch.stack([ranked[:, 0].sum(), ranked.sum(), loss.sum(), labelled, images])

    def compute(self) -> dict[str, float]:
        """top1, top5, loss, images.

        Raises:
            DataError: there is not one image; on every rank.
        """
        *sums, labelled, images = all_sum(self._sums.clone()).tolist()
        check_seen(images)
        top1, top5, loss = (value / labelled if labelled else math.nan for value in sums)
        return {"top1": 100 * top1, "top5": 100 * top5, "loss": loss, "images": images}
