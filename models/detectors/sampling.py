"""Which anchors and regions are learned from: a pure function of the sample, the epoch and the candidate's number.

So whatever torch's generator says, and on any number of ranks, the same are. B images, N candidates.
"""

from __future__ import annotations

import torch
from torch import Tensor

ANCHORS, REGIONS = 1, 2  # what is sampled: each draws for itself
_GOLDEN = 0x9E3779B97F4A7C15 - 2**64  # as int64, which wraps around like uint64
_FIRST, _SECOND = 0xBF58476D1CE4E5B9 - 2**64, 0x94D049BB133111EB - 2**64


def priorities(index: Tensor, epoch: int, count: int, what: int) -> Tensor:
    """Numbers, evenly distributed over the positive int64, that depend on nothing but the arguments; int64 [B, count].

    The SplitMix64 finaliser (Steele et al., OOPSLA 2014) applied to what is sampled, epoch, sample and candidate in
    turn, as `dataset.feed.crops` does on the host.

    Args:
        index: int64 [B], of the samples.
        epoch: from 0.
        count: of candidates.
        what: ANCHORS or REGIONS.
    """
    stream = _mixed(_mixed(torch.full_like(index, what)) + epoch)
    sample = _mixed(stream + index)  # [B]
    numbers = torch.arange(count, device=index.device)
    return _mixed(sample[:, None] + numbers) & (2**63 - 1)


def sampled(labels: Tensor, total: int, share: float, priority: Tensor) -> tuple[Tensor, Tensor]:
    """The candidates of highest priority: at most ``share`` of ``total`` positive ones, filled up with background.

    Args:
        labels: [B, N], above 0 for positive candidates, 0 for background, below 0 for those that do not count.
        total: of an image.
        share: of positive ones.
        priority: int64 [B, N], not negative.

    Returns:
        bool [B, N] each: the positive ones, and those of background.
    """
    positive = _first(labels > 0, int(total * share), priority)
    left = total - positive.sum(1, keepdim=True)  # [B, 1]
    return positive, _first(labels == 0, total, priority, left)


def _first(candidates: Tensor, most: int, priority: Tensor, limit: Tensor | None = None) -> Tensor:
    """The ``most`` candidates, bool [B, N], of highest priority, or as many of each image as ``limit`` [B, 1] says."""
    places = torch.where(candidates, priority, -1).topk(min(most, candidates.shape[1]), dim=1).indices
    taken = candidates.gather(1, places)
    if limit is not None:
        taken &= torch.arange(places.shape[1], device=places.device) < limit
    return torch.zeros_like(candidates).scatter(1, places, taken)


def _mixed(bits: Tensor) -> Tensor:
    bits = bits + _GOLDEN
    bits = (bits ^ _shifted(bits, 30)) * _FIRST
    bits = (bits ^ _shifted(bits, 27)) * _SECOND
    return bits ^ _shifted(bits, 31)


def _shifted(bits: Tensor, places: int) -> Tensor:
    """To the right, as a number without a sign."""
    return (bits >> places) & (2 ** (64 - places) - 1)
