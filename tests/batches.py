"""Batches made by hand."""

import torch

from dataset.feed.batch import Batch


def batch_of(images, labels=None, strong=None, index=None, **targets):
    """A batch of uint8 images [B, 3, H, W]; whatever is not given is not in it, but the index."""
    count = len(images)
    views = {"weak": images} if strong is None else {"weak": images, "strong": strong}
    targets = targets if labels is None else {"labels": labels, **targets}
    index = torch.arange(count) if index is None else index
    return Batch(views, torch.tensor(images.shape[2:]).expand(count, 2), targets, index)
