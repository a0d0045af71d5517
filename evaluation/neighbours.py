"""How well features tell classes apart, without a classifier. N images, D dimensions, K classes, B samples."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from dataset.store.record import UNLABELLED
from evaluation.contract import Metrics, check_seen
from utils.distributed import all_cat, any_rank, gather

if TYPE_CHECKING:
    from dataset.feed.batch import Batch
    from models.outputs import Outputs

TEMPERATURE = 0.07
_ROWS = 1024  # of similarities at a time


class Neighbours(Metrics):
    """Top-1 in percent of a vote of each image's nearest others in the split: `knn`.

    Wu et al., Unsupervised feature learning via non-parametric instance discrimination, CVPR 2018, arXiv 1805.01978,
    section 3.4: by cosine similarity s, each of the nearest votes for its class with exp(s / 0.07). They, and DINO
    (Caron et al., ICCV 2021), look for them in the training images; here the others of the same split are looked at,
    which takes no pass over the training images.

    nan where no sample has a label, or features are not given.

    Args:
        device: where they are compared.
        nearest: how many vote.
    """

    def __init__(self, device: torch.device, nearest: int) -> None:
        self._device, self._nearest = device, nearest
        self._rows: list[tuple[Tensor, Tensor, Tensor]] = []
        self._lacks_features = False

    @torch.no_grad()
    def add(self, outputs: Outputs, batch: Batch) -> None:
        """Add `pooled` [B, D] for labels [B], which are -1 where there are none; no sample may stand on two ranks."""
        index, labels = batch.index, batch.targets["labels"]
        pooled = outputs.features.get("pooled")
        self._lacks_features |= pooled is None
        pooled = torch.zeros(len(index), 1, device=index.device) if pooled is None else pooled
        self._rows.append((F.normalize(pooled.float(), dim=1), labels.clone(), index.clone()))

    @torch.no_grad()
    def compute(self) -> dict[str, float]:
        """knn, images.

        Raises:
            DataError: there is not one image; on every rank.
        """
        counts = gather(sum(len(index) for *_, index in self._rows))
        check_seen(sum(counts))
        if any_rank(self._lacks_features):
            return {"knn": math.nan, "images": sum(counts)}
        features, labels, index = self._of_all_ranks(counts)
        order = index.argsort()  # the same whatever rank had which
        features, labels = features[order], labels[order]
        if bool((labels == UNLABELLED).any()) or len(labels) < 2:
            return {"knn": math.nan, "images": len(labels)}
        right = [self._right(features, labels, start) for start in range(0, len(labels), _ROWS)]
        return {"knn": 100 * float(torch.cat(right).double().mean()), "images": len(labels)}

    def _right(self, features: Tensor, labels: Tensor, start: int) -> Tensor:
        """Whether the others vote for the class of each of some rows, bool [at most _ROWS]."""
        own = features[start : start + _ROWS]
        similar = own @ features.T  # [rows, N]
        rows = torch.arange(len(own), device=own.device)
        similar[rows, rows + start] = -math.inf
        near = similar.topk(min(self._nearest, len(labels) - 1), dim=1)
        votes = own.new_zeros(len(own), int(labels.max()) + 1)  # [rows, K]
        votes.scatter_add_(1, labels[near.indices], (near.values / TEMPERATURE).exp())
        return votes.argmax(1) == labels[start : start + _ROWS]

    def _of_all_ranks(self, counts: list[int]) -> tuple[Tensor, ...]:
        """Features [N, D], labels [N] and index [N]; ranks have different numbers of them."""
        width = max(gather(self._rows[0][0].shape[1] if self._rows else 0))
        whole = torch.zeros(0, dtype=torch.int64)
        none = torch.zeros(0, width), whole, whole
        parts = [torch.cat(some).to(self._device) for some in zip(*(self._rows or [none]))]
        padded = [F.pad(part, (*(0, 0) * (part.ndim - 1), 0, max(counts) - len(part))) for part in parts]
        wholes = [all_cat(part, 0) for part in padded]
        kept = torch.cat([torch.arange(max(counts)) < count for count in counts]).to(self._device)
        return tuple(whole[kept] for whole in wholes)
