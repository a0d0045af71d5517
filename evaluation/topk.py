"""Single-label classification. B samples, K classes."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor
from torch.nn import functional as F

from utils.distributed import all_sum
from utils.errors import DataError


@torch.no_grad()
def evaluate(
    score: Callable[[Tensor], Tensor], batches: Iterable[dict[str, Tensor]], device: torch.device
) -> dict[str, float]:
    """Top-1 and top-5 accuracy in percent and the mean cross-entropy, over the samples of all ranks.

    Args:
        score: images uint8 [B, 3, H, W] -> logits [B, K].
        batches: this rank's samples; no sample may stand on two ranks.

    Returns:
        top1, top5, loss, images.

    Raises:
        DataError: there is not one image; on every rank.
    """
    totals = torch.zeros(4, dtype=torch.float64, device=device)  # top-1, top-5, loss, images
    for batch in batches:
        logits, labels = score(batch["images"]).float(), batch["labels"]
        ranked = logits.topk(min(5, logits.shape[1]), dim=1).indices == labels[:, None]  # [B, 5]
        loss = F.cross_entropy(logits, labels, reduction="none").double()
        totals += torch.stack([ranked[:, 0].sum(), ranked.sum(), loss.sum(), torch.tensor(len(labels), device=device)])
    top1, top5, loss_sum, images = all_sum(totals).tolist()
    if not images:
        raise DataError("not one validation image could be read: look at the split with dataset/inspect_lmdb.py")
    return {"top1": 100 * top1 / images, "top5": 100 * top5 / images, "loss": loss_sum / images, "images": images}
