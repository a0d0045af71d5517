"""Ranks: starting them, and the few collectives that are needed. All work on one process without a group."""

from __future__ import annotations

import io
import logging
import os
import signal
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from datetime import timedelta
from typing import TextIO, TypeVar

import torch
from torch import Tensor
from torch import distributed as dist
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

from utils.console import as_shown, report
from utils.errors import DataError, ExpectedError, RankLost, Stopped, UsageError
from utils.memory import keep_freed_memory

# How gloo, whose errors have no type of their own, says that another rank is gone.
_GONE = ("Connection closed by peer", "Connection reset by peer", "Timed out waiting", "Broken pipe", "gloo")
_FOLLOWS = (RankLost.exit_code, -signal.SIGTERM)  # exit codes of ranks that another made fail
_PATIENCE = 5.0  # seconds in which ranks that live, or have failed too, show it

Value = TypeVar("Value")


@dataclass(frozen=True)
class Ranks:
    """This process among its peers."""

    rank: int
    world: int
    device: torch.device
    store: dist.Store | None = None  # what all can read and write, also when a collective has failed

    @property
    def first(self) -> bool:
        """Whether this is the one that writes files and prints."""
        return self.rank == 0


@contextmanager
def ranks(timeout_minutes: float) -> Iterator[Ranks]:
    """Join the process group that torchrun describes in the environment; one process needs none.

    An expected error inside is printed by one of the ranks that have it, and ends all of those with its exit code.

    Raises:
        UsageError: there are more ranks here than GPUs, or the environment is half of torchrun's.
    """
    local, world = int(os.environ.get("LOCAL_RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    cuda = torch.cuda.is_available()
    device = torch.device("cuda", local) if cuda else torch.device("cpu")
    if cuda:
        if local >= (gpus := torch.cuda.device_count()):
            raise UsageError(f"torchrun started rank {local + 1} on a machine with {gpus} GPUs: one rank a GPU")
        torch.cuda.set_device(device)
        torch.backends.cudnn.benchmark = True  # the input size does not change
    else:
        keep_freed_memory()
    if world == 1:
        yield Ranks(0, 1, device)
        return
    if absent := [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]:
        raise UsageError(f"WORLD_SIZE={world} is set and {absent[0]} is not: start with torchrun, or unset WORLD_SIZE")
    place, timeout = Ranks(int(os.environ["RANK"]), world, device), timedelta(minutes=timeout_minutes)
    try:
        store, rank, _ = next(dist.rendezvous("env://", timeout=timeout))
        store.set_timeout(timeout)
        place = Ranks(rank, world, device, dist.PrefixStore(_attempt(store, rank, world, timeout), store))
        # gloo beside NCCL: small agreements between the processes need not wait for the GPU.
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if cuda else "gloo",
            timeout=timeout,
            store=place.store,
            rank=rank,
            world_size=world,
            device_id=device if cuda else None,
        )
        yield place
    except (RuntimeError, *ExpectedError) as error:
        known = error if isinstance(error, ExpectedError) else lost(error, place, "")
        if known is None:
            raise
        known = as_shown(known)
        code = report(known) if _is_first_to_print(known, place) else known.exit_code
        if isinstance(known, RankLost):
            sys.stdout.flush()
            os._exit(code)  # leaving the group would wait for the rank that is lost
        sys.exit(code)
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


@contextmanager
def printed_once() -> Iterator[None]:
    """Before the ranks have met: what ends all ranks of a machine alike is printed by its first.

    The others wait for torchrun to end them because that one has ended; one that is left alone prints its own.
    """
    if os.environ.get("LOCAL_RANK", "0") == "0":
        yield
        return
    printed = io.StringIO()
    try:
        with redirect_stdout(printed), redirect_stderr(printed):
            yield
    except (SystemExit, *ExpectedError) as error:
        if not isinstance(error, SystemExit) or error.code:
            time.sleep(_PATIENCE)
            sys.stderr.write(printed.getvalue())
        raise


def _attempt(store: dist.Store, rank: int, world: int, timeout: timedelta) -> str:
    """A name for this start of the ranks, the same on all and never used before.

    After a restart torchrun gives the ranks the store of those before them, in which addresses of dead peers stand, and
    its count of restarts differs between machines. So rank 0 draws a name, and takes a note with a name of its own from
    each other rank: one that finds its note among those taken has met a rank 0 that lives.
    """
    mine = uuid.uuid4().hex
    if rank == 0:
        store.set("limbeck/name", mine)
        notes = [f"limbeck/{mine}/{other}" for other in range(1, world)]
        store.wait(notes, timeout)
        store.set(f"limbeck/{mine}", " ".join(store.get(note).decode() for note in notes))
        return mine
    end = time.monotonic() + timeout.total_seconds()
    while time.monotonic() < end:
        name = store.get("limbeck/name").decode()
        store.set(f"limbeck/{name}/{rank}", mine)
        if store.check([f"limbeck/{name}"]) and mine in store.get(f"limbeck/{name}").decode().split():
            return name
        time.sleep(0.05)
    raise RankLost(f"rank {rank}: rank 0 did not come within train_params.timeout_minutes")


def lost(error: RuntimeError, place: Ranks, when: str) -> RankLost | None:
    """A collective's ``error`` in one line that names the ranks that are gone, or None where it is another error.

    Args:
        error: of a collective, or of joining the group.
        place: of the rank that has it.
        when: how far the run is.
    """
    if place.world == 1 or not is_of_ranks(error):
        return None
    text = str(error)
    gone = f"rank {', '.join(map(str, _silent(place)))}" if place.store else "another rank"
    why = next((one for one in _GONE[:-1] if one in text), text.partition("\n")[0])
    return RankLost(
        f"{gone} ended or does not answer{when} ({why}; seen by rank {place.rank}). The same command resumes from the "
        "last checkpoint; where a rank is only slow, raise train_params.timeout_minutes"
    )


def is_of_ranks(error: BaseException) -> bool:
    """Whether ``error`` is how a collective says that another rank is gone, not one that is expected already."""
    gone = isinstance(error, dist.DistError) or any(one in str(error) for one in _GONE)
    return gone and not isinstance(error, ExpectedError)


def _silent(place: Ranks) -> list[int]:
    """The ranks that do not show within seconds that they live."""
    assert place.store is not None
    silent = [rank for rank in range(place.world) if rank != place.rank]
    end = time.monotonic() + _PATIENCE
    try:
        place.store.set(f"lives/{place.rank}", "")
        while len(silent) > 1 and time.monotonic() < end:
            time.sleep(0.1)
            silent = [rank for rank in silent if not place.store.check([f"lives/{rank}"])]
    except RuntimeError:  # the store went with rank 0's machine
        return [0]
    return silent


def _is_first_to_print(error: BaseException, place: Ranks) -> bool:
    """Whether no other rank has printed ``error``, or what made it lose this rank."""
    if place.store is None:
        return True
    try:
        alone = place.store.add("errors", 1) == 1
        return alone if isinstance(error, RankLost) else place.store.add(f"error/{error}", 1) == 1
    except RuntimeError:
        return True


def launch_on_every_gpu(script: str) -> int | None:
    """Run ``script`` with this command line through torchrun's launcher, one rank a visible GPU.

    Returns:
        The exit code of the rank that failed first, 0 when none did, that of `Stopped` after a signal; None where there
        is nothing to launch: at most one GPU, or torchrun started this process.
    """
    gpus = torch.cuda.device_count()
    if gpus < 2 or "LOCAL_RANK" in os.environ:
        return None
    from torch.distributed.run import main as torchrun

    logging.disable(logging.ERROR)  # the ranks print what is wrong; torchrun would add sixty lines
    forwarded = ["SIGTERM", "SIGINT", "SIGQUIT", "SIGUSR1"]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as nohup sets it
        forwarded.append("SIGHUP")
    os.environ["PET_SIGNALS_TO_HANDLE"] = ",".join(forwarded)  # the launcher's option, where it has it
    try:
        torchrun(["--standalone", f"--nproc-per-node={gpus}", script, *sys.argv[1:]])
    except SignalException:
        return Stopped.exit_code
    except ChildFailedError as error:
        failures = sorted(error.failures.items(), key=lambda failure: failure[1].exitcode in _FOLLOWS)
        rank, first = failures[0]
        if first.exitcode < 0:
            print(f"rank {rank} was ended by {first.signal_name()}; was memory short?", file=sys.stderr)
        return first.exitcode if first.exitcode > 0 else 128 - first.exitcode
    return 0


def all_sum(values: Tensor) -> Tensor:
    """The sum over ranks, in place."""
    if dist.is_initialized():
        dist.all_reduce(values)
    return values


def all_mean(values: Tensor) -> Tensor:
    """The mean over ranks; ``values`` may be overwritten."""
    return all_sum(values) / dist.get_world_size() if dist.is_initialized() else values


def all_cat(values: Tensor, dim: int) -> Tensor:
    """The ranks' tensors, of equal shapes, one behind the other along ``dim``."""
    if not dist.is_initialized():
        return values
    parts = [torch.empty_like(values) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, values.contiguous())
    return torch.cat(parts, dim)


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


def from_first(value: Value) -> Value:
    """Rank 0's ``value``, on every rank."""
    if not dist.is_initialized():
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0, device=torch.device("cpu"))
    return box[0]


def on_first(work: Callable[[], object], ranks: Ranks) -> None:
    """Let rank 0 work; a UsageError or DataError that it raises is raised on all."""
    failure: Exception | None = None
    if ranks.first:
        try:
            work()
        except (UsageError, DataError) as error:
            failure = error
    failure = from_first(failure)
    if failure is not None:
        raise failure


def print_on_first(line: str, file: TextIO | None = None) -> None:
    """Print ``line`` on the first rank alone, to stdout or to ``file``."""
    if not dist.is_initialized() or dist.get_rank() == 0:
        print(line, file=file)


def barrier() -> None:
    """Wait until every rank is here."""
    if dist.is_initialized():
        any_rank(False)
