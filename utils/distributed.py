"""Ranks: starting them, and the few collectives that are needed. All work on one process without a group."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import Tensor
from torch import distributed as dist
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

from utils.memory import keep_freed_memory


@dataclass(frozen=True)
class Ranks:
    """This process among its peers."""

    rank: int
    world: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this is the one that writes files and prints."""
        return self.rank == 0


@contextmanager
def ranks(timeout_minutes: float) -> Iterator[Ranks]:
    """Join the process group that torchrun describes in the environment; one process needs none."""
    local, world = int(os.environ.get("LOCAL_RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    cuda = torch.cuda.is_available()
    device = torch.device("cuda", local) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
        torch.backends.cudnn.benchmark = True  # the input size does not change
    else:
        keep_freed_memory()
    if world == 1:
        yield Ranks(0, 1, device)
        return
    # gloo beside NCCL: small agreements between the processes need not wait for the GPU.
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if cuda else "gloo",
        timeout=timedelta(minutes=timeout_minutes),
        device_id=device if cuda else None,
    )
    try:
        yield Ranks(dist.get_rank(), dist.get_world_size(), device)
    finally:
        dist.destroy_process_group()


def launch_on_every_gpu(script: str) -> int | None:
    """Run ``script`` with this command line through torchrun's launcher, one rank a visible GPU.

    Returns:
        The exit code of the first rank that failed, 0 when none did; None where there is nothing to launch: at most
        one GPU, or torchrun started this process.
    """
    gpus = torch.cuda.device_count()
    if gpus < 2 or "LOCAL_RANK" in os.environ:
        return None
    from torch.distributed.run import main as torchrun

    try:
        torchrun(["--standalone", f"--nproc-per-node={gpus}", script, *sys.argv[1:]])
    except ChildFailedError as error:
        code = error.get_first_failure()[1].exitcode
        return code if code > 0 else 128 - code
    return 0


def all_sum(values: Tensor) -> Tensor:
    """The sum over ranks, in place."""
    if dist.is_initialized():
        dist.all_reduce(values)
    return values


def all_mean(values: Tensor) -> Tensor:
    """The mean over ranks; ``values`` may be overwritten."""
    return all_sum(values) / dist.get_world_size() if dist.is_initialized() else values


def any_rank(flag: bool) -> bool:
    """Whether ``flag`` holds on any rank."""
    if not dist.is_initialized():
        return flag
    shared = torch.tensor([float(flag)])
    dist.all_reduce(shared, op=dist.ReduceOp.MAX)
    return bool(shared.item())


def gather(value: object) -> list:
    """Every rank's ``value``, by rank."""
    if not dist.is_initialized():
        return [value]
    values: list = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def from_first(value: str) -> str:
    """Rank 0's ``value``, on every rank."""
    if not dist.is_initialized():
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0, device=torch.device("cpu"))
    return box[0]


def say(line: str) -> None:
    """Print ``line`` on the first rank alone."""
    if not dist.is_initialized() or dist.get_rank() == 0:
        print(line)


def barrier() -> None:
    """Wait until every rank is here."""
    if dist.is_initialized():
        any_rank(False)
