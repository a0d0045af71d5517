"""Preallocated batches in shared memory, filled in place by decoding processes.

A batch is asked for with `submit` and is there after `wait`; its arrays are the shared memory itself, so nothing is
copied, pickled or allocated, until `release` gives the slot back. The memory is an anonymous file: it takes no space in
/dev/shm, which containers keep small, and goes when the last process that maps it ends, however it ends. Decoding
processes read their tasks from one pipe, whoever is free first, and end when the trainer closes it or dies.
"""

from __future__ import annotations

import mmap
import os
import pickle
import select
import selectors
import subprocess
import sys
import tempfile
import time
import warnings
import weakref
from collections import deque
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

from dataset.feed.batches import BatchMaker, shown
from dataset.feed.targets import Arrays
from dataset.feed.worker import AT, DONE, SUMS, TASK, Layout
from dataset.store.samples import Samples
from utils.errors import DataError, UsageError

_ROOT = Path(__file__).resolve().parents[2]
# With -m Python looks into the current folder first, which may be a project with a `dataset` of its own.
_WORKER = f"import sys; sys.path[0] = {str(_ROOT)!r}; from dataset.feed.worker import main; main()"
_ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1"}  # NumPy starts as many as there are cores: 40 ms and 1 MB of a process
# Samples a task: enough to draw crops for at once, few enough to share a batch.
_PIECE, _PIXELS = (16, 64), 16 * 224**2  # fewer than 16 where they have so many pixels


class Ring:
    """Batches of up to ``rows`` samples, made by ``workers`` processes, or by this one where ``workers`` is 0.

    Attributes:
        count: of slots.
        slots: the batches' arrays, none before `start`.
        memory: the bytes they lie in, None without processes.
    """

    def __init__(self, maker: BatchMaker, rows: int, workers: int) -> None:
        self._maker, self._rows = maker, rows
        least, most = min(_PIECE[0], max(1, _PIXELS // maker.pixels)), _PIECE[1]
        self._piece = min(max(rows // max(workers, 1), least), most)
        pieces = -(-rows // self._piece)
        count = max(3, -(-2 * workers // pieces) + 1) if workers else 1  # two pieces for each worker, and one in use
        layout = Layout(maker.layout(rows), workers, count)
        self._owed: list[dict[int, int]] = [{} for _ in range(count)]  # by slot, pieces not done: first row, end
        self._sizes = [0] * count
        self._epochs = [0] * count
        self.count, self._free = count, deque(range(count))
        self._layout = layout
        self._workers: list[_Worker] = []
        self._spent = np.zeros(3, np.int64)  # by this process
        self._fatal: set[int] = set()  # samples at which a process died or hung
        self.memory: mmap.mmap | None = None
        self.slots: list[Arrays] = []

    def start(self) -> bool:
        """Allocate the slots and start the workers; False when that is done already."""
        if self.slots:
            return False
        if self._layout.workers:
            self._start_workers(self._layout)
        else:
            self.slots = [{name: np.empty(shape, kind) for name, (kind, shape) in self._layout.arrays.items()}]
        return True

    @property
    def has_room(self) -> bool:
        """Whether `submit` can take another batch."""
        return bool(self._free)

    def submit(self, index: np.ndarray, epoch: int, among: np.ndarray | None = None) -> int:
        """Ask for the samples ``index``, int64 [at most rows]; returns the slot they will be in.

        Their canvas is that of the samples ``among``, the batches of all ranks together, where these are given.
        """
        slot = self._free.popleft()
        self.slots[slot]["canvas"][:] = self._maker.canvas(index if among is None else among, epoch)
        wanted = self.slots[slot]["index"][: len(index)]
        wanted[:] = index
        wanted[np.isin(index % len(self._maker.samples), list(self._fatal))] = -1
        self._sizes[slot] = len(index)
        self._epochs[slot] = epoch
        if self._layout.workers:
            for start in range(0, len(index), self._piece):
                self._send(slot, start, min(start + self._piece, len(index)))
        else:
            self._owed[slot] = {0: len(index)}
        return slot

    def ready(self, slot: int) -> bool:
        """Whether `wait` would return at once."""
        if self._workers and self._owed[slot]:
            self._receive(0)
        return not self._owed[slot]

    def wait(self, slot: int) -> Arrays:
        """The batch in ``slot``, arrays in the shared memory.

        Raises:
            DataError: a sample could not be read, or a worker died or hangs, and `on_fault` is stop; or no worker
                is left.
        """
        if not self._layout.workers and self._owed[slot]:
            rows = range(self._sizes[slot])
            remarks = self._maker.fill(self.slots[slot], rows, self._epochs[slot], np.zeros(2, np.int64), self._spent)
            for remark in remarks:
                _skipped(remark)
            self._owed[slot].clear()
        while self._owed[slot]:
            if not self._workers:
                raise DataError("no decoding process is left")
            if not self._receive(1.0):
                self._look_for_hangs()
                self._look_for_lost(slot)
        return {name: array[: self._sizes[slot]] for name, array in shown(self.slots[slot]).items()}

    def release(self, slot: int) -> None:
        """Give the slot back."""
        self._free.append(slot)

    def spent(self) -> np.ndarray:
        """Nanoseconds since `start` that all processes together were idle, read, decoded and resized; int64 [4]."""
        if self.memory is None:
            return np.concatenate([[0], self._spent])
        rests, now = self._status[:, 5], time.monotonic_ns()
        spent = self._status[:, SUMS].sum(0)
        spent[0] += (now - rests[rests > 0]).sum()
        return spent

    def drain(self) -> None:
        """Wait for batches that were asked for and are no longer wanted, and give all slots back."""
        for slot in range(len(self.slots)):
            if slot not in self._free:
                if self._layout.workers:
                    self.wait(slot)
                self._owed[slot].clear()
                self.release(slot)

    def close(self) -> None:
        """End the workers; `start` may begin anew."""
        if self.memory is not None:
            self._end()
        self.memory, self._workers, self.slots = None, [], []
        self._free = deque(range(self._layout.slots))
        self._owed = [{} for _ in self._free]

    def _start_workers(self, layout: Layout) -> None:
        try:
            self._pickled = pickle.dumps(self._maker)
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise UsageError(f"the samples cannot go to a decoding process ({error}): move them to a module") from None
        descriptor = _anonymous_file(layout.bytes)
        self.memory = mmap.mmap(descriptor, layout.bytes)
        self._status, self.slots = layout.map(self.memory)
        self._waiting, self._tasks = os.pipe()
        self._done, done = os.pipe()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._done, selectors.EVENT_READ)
        self._of_workers = descriptor, self._waiting, done
        pipes = (self._tasks, self._done, *self._of_workers)
        self._end = weakref.finalize(self, _end, self._workers, pipes, self._selector)
        try:
            for number in range(layout.workers):
                self._start_worker(number)
        except OSError as error:
            raise DataError(
                f"decoding processes cannot be started: {error.strerror}; lower data.num_workers, or raise the limit"
            ) from None

    def _start_worker(self, number: int) -> None:
        control, theirs = Pipe()
        descriptors = (*self._of_workers, theirs.fileno())
        process = subprocess.Popen(
            [sys.executable, "-c", _WORKER, *map(str, descriptors)],
            pass_fds=descriptors,
            env={**os.environ, **_ONE_THREAD, "PYTHONPATH": os.pathsep.join([str(_ROOT), *filter(None, sys.path)])},
            start_new_session=True,  # Ctrl-C is for the trainer, which saves its state first
        )
        theirs.close()
        control.send((sys.path, number, self._layout, self._pickled))
        worker = _Worker(number, process, control)
        self._workers.append(worker)
        self._selector.register(control, selectors.EVENT_READ, worker)

    def _send(self, slot: int, start: int, stop: int) -> None:
        """Hand out rows of a slot, but for those whose sample cannot be read."""
        rows = start + np.flatnonzero(self.slots[slot]["index"][start:stop] >= 0)
        for run in np.split(rows, np.flatnonzero(np.diff(rows) > 1) + 1):
            if len(run):
                first, end = int(run[0]), int(run[-1]) + 1
                self._owed[slot][first] = end
                os.write(self._tasks, TASK.pack(slot, first, end, self._epochs[slot]))

    def _receive(self, timeout: float) -> bool:
        """Take note of what workers report within ``timeout`` seconds; whether they did."""
        reports = self._selector.select(timeout)
        for key, _ in sorted(reports, key=lambda report: report[0].data is not None):  # what is done comes first
            if key.data is None:
                for slot, start in DONE.iter_unpack(os.read(self._done, 64 * DONE.size)):
                    self._owed[slot].pop(start, None)
            else:
                self._hear(key.data)
        return bool(reports)

    def _hear(self, worker: _Worker) -> None:
        """A remark of a worker, its error, or its end."""
        try:
            message = worker.control.recv()
        except (EOFError, OSError):
            code = worker.process.wait()
            how = f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
            self._lose(worker, how)
            return
        if isinstance(message, Exception):
            raise message
        _skipped(message)

    def _look_for_hangs(self) -> None:
        limit = self._maker.config.worker_timeout
        now = time.monotonic_ns()
        for worker in list(self._workers):
            since = self._status[worker.number, 4]
            if since and (now - since) / 1e9 > limit:
                worker.process.kill()
                worker.process.wait()
                self._lose(worker, f"was still at work after {limit:.0f} s")

    def _look_for_lost(self, slot: int) -> None:
        """Hand out again what a worker took from the pipe and died before it could report."""
        queue = select.poll()
        queue.register(self._waiting, select.POLLIN)
        if not self._status[:, 4].any() and not queue.poll(0):
            pieces = list(self._owed[slot].items())
            self._owed[slot].clear()
            for start, stop in pieces:
                self._send(slot, start, stop)

    def _lose(self, worker: _Worker, how: str) -> None:
        """Replace a worker, unless `on_fault` is stop; the sample it was at is given up, the rest handed out again."""
        slot, start, stop, row, since, _ = self._status[worker.number, AT].tolist()
        busy = since != 0 and start in self._owed[slot]
        index = int(self.slots[slot]["index"][row]) % len(self._maker.samples)
        message = f"decoding process {worker.number} (pid {worker.process.pid}) {how}"
        if busy:
            message += f" at {self._maker.samples.describe(index)}{_fault_of(self._maker.samples, index)}"
        self._selector.unregister(worker.control)
        self._workers.remove(worker)
        if self._maker.config.on_fault == "stop":
            raise DataError(f"{message}. Is memory short, or the disk gone? data.on_fault=skip continues without it")
        began = self._status[worker.number, :5].any()
        self._status[worker.number, AT] = 0
        if began:
            self._start_worker(worker.number)
            message += "; another takes its place"
        elif self._workers:  # one that dies before its first sample would do so again
            message += f"; continuing with {len(self._workers)}"
        else:
            raise DataError(f"{message}; none is left. Is memory short?")
        warnings.warn(message, RuntimeWarning, stacklevel=2)
        if busy:
            self._fatal.add(index)
            self.slots[slot]["index"][row] = -1
            del self._owed[slot][start]
            self._send(slot, start, stop)  # rows before it may hold records without pixels


@dataclass(frozen=True)
class _Worker:
    number: int
    process: subprocess.Popen
    control: Connection


def _fault_of(samples: Samples, index: int) -> str:
    """What is wrong with the file that a sample lies in."""
    try:
        samples.check(index)
    except (DataError, OSError) as error:
        return f" ({error})"
    return ""


def _skipped(remark: str) -> None:
    warnings.warn(f"skipped: {remark}", RuntimeWarning, stacklevel=2)


def _anonymous_file(size: int) -> int:
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("limbeck-batches")
    else:  # not Linux
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    os.truncate(descriptor, size)
    return descriptor


def _end(workers: list[_Worker], pipes: tuple[int, ...], selector: selectors.BaseSelector) -> None:
    os.close(pipes[0])  # at which the workers end
    for worker in workers:
        worker.control.close()
    deadline = time.monotonic() + 5
    for worker in workers:
        try:
            worker.process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            worker.process.kill()
            worker.process.wait()
    selector.close()
    for pipe in pipes[1:]:
        os.close(pipe)
