"""LMDB files opened for reading: each once in a process, and only if no number in their pages leads outside the file.

LMDB refuses a second opening of a file, so readers share it, by device and inode. And LMDB trusts the page numbers,
offsets and lengths that it reads: of a damaged file it may read beyond the end, which is a SIGBUS and no error. So the
tree of pages is walked once, by reading; values of more than half a page lie in runs of pages of their own, which the
walk does not touch, so it reads about one page in 200 records.

The format is that of LMDB 0.9 (mdb.c), on a 64-bit little-endian machine::

    page      pgno u64, pad u16, flags u16, lower u16, upper u16; from here to `lower` the nodes' places, u16; nodes
    node      low u16, high u16, flags u16, key size u16, key; in a leaf, value. In a branch low, high and flags are the
              page below; in a leaf low and high are the value's size, and of a large value the run's first page, u64,
              takes its place
    meta      pages 0 and 1: magic u32, version u32, address u64, map size u64, databases `free` and `main`, last page
              u64, transaction u64
    database  pad u32 (of `free`: page size), flags u16, depth u16, branch, leaf, overflow pages, entries, root u64
"""

from __future__ import annotations

import errno
import os
import resource
import threading
import weakref
from collections.abc import Callable
from pathlib import Path

import lmdb
import numpy as np

from utils.errors import DataError

_MAGIC, _BRANCH, _LEAF, _META, _BIG = 0xBEEFC0DE, 0x01, 0x02, 0x08, 0x01
_PAGE_SIZES = tuple(1 << power for power in range(8, 17))
_MOST, _DEEPEST = 1 << 46, 32  # bytes that a process can map; levels that LMDB's cursors can follow
_NO_PAGE = (1 << 64) - 1  # the root of an empty tree
_CHUNK = 256  # pages checked at a time
_PAGE = np.dtype([("pgno", "<u8"), ("pad", "<u2"), ("flags", "<u2"), ("lower", "<u2"), ("upper", "<u2")])
_DATABASE = np.dtype(
    [("pad", "<u4"), ("flags", "<u2"), ("depth", "<u2"), ("pages", "<u8", 3), ("entries", "<u8"), ("root", "<u8")]
)
_METADATA = np.dtype(
    [
        *(("page", _PAGE), ("magic", "<u4"), ("version", "<u4"), ("address", "<u8"), ("map_size", "<u8")),
        *(("free", _DATABASE), ("main", _DATABASE), ("last", "<u8"), ("transaction", "<u8")),
    ]
)

_ADVICE = {
    errno.EMFILE: "more files may not be open: raise the limit (ulimit -n)",
    errno.ENFILE: "more files may not be open on this machine: raise fs.file-max, or end other programs",
    errno.ENOMEM: "no address space to map it: raise the limit of address space (ulimit -v), or free memory",
    errno.EACCES: "make it readable for this user",
    errno.EPERM: "make it readable for this user",
    errno.EIO: "the disk or the network does not give it: check them, and run the same command again",
    errno.ESTALE: "the network's file system does not give it: mount it again, and run the same command again",
}
_opened: weakref.WeakValueDictionary[tuple[int, int], _Environment] = weakref.WeakValueDictionary()
_opening = threading.Lock()
_sound: set[tuple[int, ...]] = set()  # files that were walked: device, inode, size, time of change


class _Environment:
    """What the readers of a file in this process share; it closes when the last one lets go of it."""

    def __init__(self, environment: lmdb.Environment) -> None:
        self.environment = environment


class Reading:
    """A read-only transaction on an LMDB file or folder, without a lock file, so that a read-only disk serves.

    Raises:
        DataError: the file is damaged or cannot be opened; ``mend`` is what to do with a damaged one.
    """

    def __init__(self, path: Path, mend: str, *, readahead: bool = False) -> None:
        file = path / "data.mdb" if path.is_dir() else path
        with _opening:
            try:
                status = file.stat()
                self._shared = _opened.get((status.st_dev, status.st_ino)) or _open(file, status, mend, readahead)
                _opened[status.st_dev, status.st_ino] = self._shared
                self.transaction = self._shared.environment.begin(buffers=True)
            except (OSError, lmdb.Error) as error:
                why = error.strerror if isinstance(error, OSError) else str(error)
                raise DataError(f"{file}: {why}; {_advice(str(why), mend)}") from None

    def close(self) -> None:
        """End the transaction, and with the last one of this file close it."""
        self.transaction.abort()
        del self._shared


class OpenFiles:
    """The files of one reader that are open, by number. Those used longest ago are closed again when they are many.

    Attributes:
        most: of them at a time; half of the files that a process may have open.
    """

    def __init__(self) -> None:
        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self.most = 1 << 20 if soft == resource.RLIM_INFINITY else max(4, (soft - 64) // 2)
        self._process = os.getpid()
        self._open: dict[int, Reading] = {}

    def transaction(self, number: int, open_it: Callable[[int], Reading]) -> lmdb.Transaction:
        """Of a file, which ``open_it`` opens if it is not."""
        if self._process != os.getpid():
            assert not self._open, "shards were read before a fork: close() the reader first"
            self._process = os.getpid()
        reading = self._open.pop(number, None) or open_it(number)
        self._open[number] = reading  # the last one used
        if len(self._open) > self.most:
            self._open.pop(next(iter(self._open))).close()
        return reading.transaction

    def close(self, unwanted: Callable[[int], bool] = lambda number: True) -> None:
        """Close those that are ``unwanted``."""
        for number in list(filter(unwanted, self._open)):
            self._open.pop(number).close()

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_open": {}}


def _open(file: Path, status: os.stat_result, mend: str, readahead: bool) -> _Environment:
    seen = status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
    if seen not in _sound:
        check_pages(file, mend)
        _sound.add(seen)
    # The folder of a data.mdb may be open too, and is the same environment to LMDB.
    return _Environment(
        lmdb.open(str(file), subdir=False, readonly=True, lock=False, readahead=readahead, create=False)
    )


def _advice(why: str, mend: str) -> str:
    if "already open" in why:
        return "close what else has it open in this process"
    return next((advice for number, advice in _ADVICE.items() if os.strerror(number) in why), mend)


def check_pages(file: Path, mend: str) -> None:
    """Walk the tree of pages of the newest transaction.

    Raises:
        DataError: the file is truncated, or a number in a page leads outside the page or the file.
        OSError: it cannot be read.
    """
    descriptor = os.open(file, os.O_RDONLY)
    try:
        size = os.fstat(descriptor).st_size
        known = _metas(descriptor)
        if known is None:
            raise DataError(f"{file} is not an LMDB file, or its first pages are damaged; {mend}")
        page_size, metas = known
        newest = metas[int(metas[0]["transaction"] < metas[1]["transaction"])]  # as LMDB chooses
        pages = int(newest["last"]) + 1
        if size < pages * page_size:
            raise DataError(f"{file} is truncated: {size} of {pages * page_size} bytes; {mend}")
        tree = newest["main"]
        empty = tree["root"] == _NO_PAGE
        level = np.array([] if empty else [tree["root"]], np.uint64)
        for depth in range(0 if empty else max(1, int(tree["depth"])), 0, -1):
            if not (len(np.unique(level)) == len(level) < pages and ((level > 1) & (level < pages)).all()):
                raise DataError(f"{file}: its tree of pages is damaged; {mend}")
            below = [np.array([], np.uint64)]
            for start in range(0, len(level), _CHUNK):
                numbers = level[start : start + _CHUNK]
                raw = b"".join(os.pread(descriptor, page_size, int(number) * page_size) for number in numbers)
                chunk = np.frombuffer(raw, np.uint8).reshape(len(numbers), page_size)
                sound, children = _check_pages(chunk, numbers, pages, leaves=depth == 1)
                if not sound:
                    raise DataError(f"{file}: its tree of pages is damaged; {mend}")
                below.append(children)
            level = np.concatenate(below)
    finally:
        os.close(descriptor)


def _metas(descriptor: int) -> tuple[int, list[np.void]] | None:
    """Page size and both meta pages, where they are LMDB's."""
    first = os.pread(descriptor, _METADATA.itemsize, 0)
    if len(first) < _METADATA.itemsize:
        return None
    page_size = int(np.frombuffer(first, _METADATA)[0]["free"]["pad"])
    if page_size not in _PAGE_SIZES:
        return None
    second = os.pread(descriptor, _METADATA.itemsize, page_size)
    if len(second) < _METADATA.itemsize:
        return None
    metas = np.frombuffer(first + second, _METADATA)
    sound = (metas["magic"] == _MAGIC) & (metas["version"] == 1) & (metas["page"]["flags"] == _META)
    sound &= (metas["free"]["pad"] == page_size) & (metas["map_size"] < _MOST) & (metas["last"] < _MOST // page_size)
    sound &= (metas["address"] == 0) & (metas["main"]["flags"] == 0) & (metas["main"]["depth"] < _DEEPEST)
    return (page_size, list(metas)) if sound.all() else None


def _check_pages(chunk: np.ndarray, numbers: np.ndarray, pages: int, *, leaves: bool) -> tuple[bool, np.ndarray]:
    """Whether all that pages refer to is inside them and inside the file, and the pages below.

    Args:
        chunk: uint8 [N, page size].
        numbers: uint64 [N], of the pages.
        pages: of the file.
        leaves: whether they are the lowest pages of the tree.
    """
    none, page_size = np.array([], np.uint64), chunk.shape[1]
    head = np.ascontiguousarray(chunk[:, : _PAGE.itemsize]).view(_PAGE)[:, 0]
    lower, upper = head["lower"].astype(np.int64), head["upper"].astype(np.int64)
    count = (lower - _PAGE.itemsize) // 2  # of nodes
    sound = (head["pgno"] == numbers) & (head["flags"] == (_LEAF if leaves else _BRANCH)) & (lower % 2 == 0)
    sound &= (count >= (1 if leaves else 2)) & (lower <= upper) & (upper <= page_size)
    if not sound.all():
        return False, none
    offsets = np.ascontiguousarray(chunk[:, _PAGE.itemsize : lower.max()]).view("<u2")
    rows, columns = np.nonzero(np.arange(offsets.shape[1]) < count[:, None])
    node = offsets[rows, columns].astype(np.int64)
    if (node < upper[rows]).any() or (node + 8 > page_size).any():
        return False, none
    at = rows * page_size + node
    low, high, flags, key = _gathered(chunk, at, "<u2").astype(np.int64).T
    size = low | high << 16
    if not leaves:
        children = (size | flags << 32).astype(np.uint64)
        return bool((node + 8 + key <= page_size).all()), children
    big = flags == _BIG
    if (flags & ~_BIG).any() or (node + 8 + key + np.where(big, 8, size) > page_size).any():
        return False, none
    first = _gathered(chunk, (at + 8 + key)[big], "<u8")[:, 0]
    run = -(-(_PAGE.itemsize + size[big]) // page_size)
    return bool(((first > 1) & (first < pages) & (first + run.astype(np.uint64) <= pages)).all()), none


def _gathered(chunk: np.ndarray, at: np.ndarray, kind: str) -> np.ndarray:
    """The eight bytes from each place on, as numbers of ``kind``."""
    return chunk.reshape(-1)[at[:, None] + np.arange(8)].view(kind)
