"""A decoding process: takes pieces of batches from a pipe and fills them in, in memory shared with the trainer.

Started by `dataset.feed.ring`, never by hand, with four file descriptors: MEMORY TASKS DONE CONTROL. It ends when the
trainer closes the task pipe or dies.
"""

from __future__ import annotations

import mmap
import os
import pickle
import signal
import struct
import sys
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection

import cv2
import numpy as np

from dataset.feed.batches import BatchMaker
from dataset.feed.targets import Arrays, Fields
from utils.errors import DataError, UsageError

# Pipes carry whole messages of one size, below the size that the system keeps in one piece.
TASK = struct.Struct("iiiq")  # slot, first row, end row, epoch
DONE = struct.Struct("ii")  # slot, first row
# int64 a worker: what it is at; since when (monotonic nanoseconds), 0 when idle; since when it is idle, else 0; and the
# nanoseconds of idleness and of what `BatchMaker.fill` adds to, over all processes that had this row.
STATUS = ("slot", "start", "stop", "row", "since", "rests", "idle", "read", "decode", "resize")
AT, SUMS = slice(0, 6), slice(6, 10)


@dataclass(frozen=True)
class Layout:
    """How the shared memory is cut: a status row for each worker, then the slots."""

    arrays: Fields
    workers: int
    slots: int

    def map(self, memory: mmap.mmap) -> tuple[np.ndarray, list[Arrays]]:
        """Status, int64 [workers, 10], and the slots' arrays, on ``memory``."""
        status = np.frombuffer(memory, np.int64, self.workers * len(STATUS)).reshape(self.workers, -1)
        at = _aligned(status.nbytes)
        slots = []
        for _ in range(self.slots):
            slot: Arrays = {}
            for name, (kind, shape) in self.arrays.items():
                slot[name] = np.frombuffer(memory, kind, int(np.prod(shape)), at).reshape(shape)
                at += _aligned(slot[name].nbytes)
            slots.append(slot)
        return status, slots

    @property
    def bytes(self) -> int:
        """Size of the memory."""
        sizes = (_aligned(int(np.prod(shape)) * np.dtype(kind).itemsize) for kind, shape in self.arrays.values())
        return _aligned(8 * self.workers * len(STATUS)) + self.slots * sum(sizes)


def _aligned(size: int) -> int:
    return -(-size // mmap.PAGESIZE) * mmap.PAGESIZE


def main() -> None:
    """Work until the task pipe closes."""
    memory_fd, tasks, done, control_fd = map(int, sys.argv[1:])
    cv2.setNumThreads(0)  # one process a core already
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, signal.SIG_DFL)
    control = Connection(control_fd)
    path, number, layout, pickled = control.recv()
    sys.path[:] = path  # so that samples of the user's own modules are found
    try:
        maker: BatchMaker = pickle.loads(pickled)
    except Exception as error:
        control.send(UsageError(f"the samples cannot go to a decoding process ({error}): move them to a module"))
        return
    status, slots = layout.map(mmap.mmap(memory_fd, layout.bytes))
    mine = status[number]
    spent = mine[7:]

    mine[5] = time.monotonic_ns()
    while len(message := os.read(tasks, TASK.size)) == TASK.size:
        slot, start, stop, epoch = TASK.unpack(message)
        began, rests = time.monotonic_ns(), mine[5]
        mine[AT] = slot, start, stop, start, began, 0
        mine[6] += began - rests
        try:
            for remark in maker.fill(slots[slot], range(start, stop), epoch, mine[3:5], spent):
                control.send(remark)
        except DataError as error:
            control.send(error)
            return
        os.write(done, DONE.pack(slot, start))
        mine[4:6] = 0, time.monotonic_ns()  # last: one that seems idle has sent everything
