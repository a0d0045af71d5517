"""The distiller on several ranks."""

from __future__ import annotations

from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn.parallel import DistributedDataParallel

from knowledge_distiller import KnowledgeDistiller
from utils.distributed import Ranks, all_sum

# Renamed in torch 2.13; there ranks begin with the buffers of rank 0, which are those of all.
_RENAMED = "forward_sync_buffers" in signature(DistributedDataParallel).parameters
_OWN_BUFFERS: dict[str, Any] = {"forward_sync_buffers" if _RENAMED else "broadcast_buffers": False}


def under_ddp(distiller: KnowledgeDistiller, ranks: Ranks) -> DistributedDataParallel:
    """The distiller, which averages its gradients over the ranks."""
    # Buffers stay each rank's own: a memory of features must not be overwritten by rank 0's.
    module = DistributedDataParallel(
        distiller,
        device_ids=[ranks.device.index] if ranks.device.type == "cuda" else None,
        gradient_as_bucket_view=True,
        find_unused_parameters=not distiller.reaches_everything,
        **_OWN_BUFFERS,
    )
    if ranks.device.type == "cpu":
        module.register_comm_hook(None, lambda _state, bucket: _mean_in_double(bucket))
    return module


def _mean_in_double(bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:
    """The mean of a bucket over the ranks, in float64 on the way.

    After its first step DDP lays the buckets out anew, and where a gradient lies decides in which order the ranks' are
    added. In float32 a run that resumes, whose first step is another, would differ from one that was not stopped.
    """
    gradients = bucket.buffer()
    total = dist.all_reduce(gradients.double(), async_op=True).get_future()
    return total.then(lambda done: gradients.copy_(done.value()[0] / dist.get_world_size()))


@torch.no_grad()
def average_statistics(module: nn.Module, ranks: Ranks) -> None:
    """Give every rank the mean of the ranks' batch norm statistics, so that all evaluate and save the same network."""
    if ranks.world > 1:
        for name, buffer in module.named_buffers():
            if name.endswith(("running_mean", "running_var")):
                all_sum(buffer).div_(ranks.world)
