"""Where the time of a run goes, and which setting makes the loader faster where the run waits for it."""

from __future__ import annotations

import math
import os

from dataset.loader import DataConfig, TrainLoader
from utils.stopwatch import Stopwatch

_WAITS = 0.05  # share of waiting for data from which on a setting is named
_LIMITS = 0.3  # least share of the decoding processes' time of what is said to limit them
_RESIZED = ("random_sized", "rand_scale", "squash")  # training crops that are


class Spent:
    """Shares of time between two lines of the log, of this rank.

    `time/read`, `time/decode`, `time/resize` and `time/slot` are of the time of all decoding processes together; in the
    last they have nothing to do, for the ring is full. With `data.num_workers=0` it is the trainer's time. What they
    lack to 1 is drawing crops, targets, and the processes' start.

    `time/data`, `time/copy`, `time/teacher`, `time/student` and `time/optimizer` are of the trainer's time: waiting for
    a batch; bringing it to the device and distorting it there; the teachers' forward passes (not told from the
    student's where the networks are compiled); forward and backward of the student and the loss, with the exchange of
    gradients; the optimizer's step, clipping and moving average. What they lack to 1 is logs and checkpoints, and the
    steps of others where several students share a stream; a teacher's pass is then the first's that reads it.

    On a GPU the last four are its own time in the last step before the line, taken for all of them, and `time/data` is
    what is left of the wait for batches beside it: the GPU may still have work while the trainer waits.

    Args:
        loader: of the training batches.
        stopwatch: of the parts of a step.
    """

    def __init__(self, loader: TrainLoader, stopwatch: Stopwatch) -> None:
        self._loader, self._on_gpu = loader, stopwatch.on_gpu
        self._stopwatches = (loader.stopwatch, stopwatch)

    def begin(self) -> None:
        """Begin anew."""
        self._before = self._loader.spent()
        self._parts = self._read()

    def measure(self, *, last: bool) -> None:
        """Get ready for the next step, the ``last`` before `shares` or not."""
        for stopwatch in self._stopwatches:
            stopwatch.on = last or not self._on_gpu  # a GPU's events take time, too

    def shares(self, steps: int, elapsed: float, waited: float) -> dict[str, float]:
        """The shares since `begin` or the last call, each from 0 to 1, as are the sums of those of one time.

        Args:
            steps: how many there were.
            elapsed: seconds.
            waited: of these, waiting for the loader.
        """
        now = self._loader.spent()
        worked = {name: max(0.0, now[name] - before) for name, before in self._before.items()}
        whole = max(elapsed * max(1, self._loader.config.num_workers), sum(worked.values()))
        read = self._read()
        parts = {name: seconds - self._parts.get(name, 0.0) for name, seconds in read.items()}
        if "student" in parts:
            parts["student"] -= parts.get("teacher", 0.0)  # within it
        if self._on_gpu:
            parts = {name: seconds * steps for name, seconds in parts.items()}
        else:
            waited -= parts.get("copy", 0.0)
        busy = sum(parts.values())
        of_step = {"data": max(0.0, min(waited, elapsed - busy)), **parts}
        self._before, self._parts = now, read
        return {
            **{f"time/{name}": seconds / whole for name, seconds in worked.items()},
            **{f"time/{name}": seconds / max(elapsed, busy) for name, seconds in of_step.items()},
        }

    def _read(self) -> dict[str, float]:
        """Seconds of the parts of a step so far."""
        return {name: seconds for stopwatch in self._stopwatches for name, seconds in stopwatch.read().items()}


def faster_loader(shares: dict[str, float], data: DataConfig, cores: int) -> str:
    """The setting that makes the loader faster, in words for the log; empty where none would, or it is not waited for.

    Args:
        shares: as `Spent.shares` gives them.
        data: the settings.
        cores: of this rank.
    """
    waits, workers = shares["time/data"], data.num_workers
    if waits < _WAITS or shares["time/slot"] > 0.5:  # the processes have time: something else is waited for
        return ""
    if workers < cores:
        wanted = workers / (1 - waits) if workers else waits / (1 - waits)  # enough to keep up
        return f"set data.num_workers={min(cores, max(workers + 1, math.ceil(wanted)))}"
    limit = max(("read", "decode", "resize"), key=lambda name: shares[f"time/{name}"])
    if shares[f"time/{limit}"] < _LIMITS:
        return ""
    if data.train_data_type == "img":
        return "pack the images, and set data.train_data_type=lmdb in a new run"
    if limit == "read" and data.order == "shuffle":
        return "pack with --shuffle, and set data.order=blocks in a new run"
    if limit != "read" and data.type_of_data_aug in _RESIZED:
        if data.resize != "antialias":
            return "set data.resize=antialias in a new run"
        if data.decode == "exact":
            return "set data.decode=planes in a new run"
        if data.train_split == "train":
            size = data.input_size * 8 // 7  # 256 for 224
            return f"pack with --image_size {size}, and set data.train_split=train_{size} in a new run"
    return ""


def cores_of_rank() -> int:
    """How many cores this rank has, where the ranks of a machine share them."""
    return max(1, len(os.sched_getaffinity(0)) // int(os.environ.get("LOCAL_WORLD_SIZE", 1)))
