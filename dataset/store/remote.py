"""Shards behind a URL: whole ones are fetched into a folder of this machine, checked, and read from there.

Every rank and decoding process of a machine shares the folder through file locks. Its size is bounded: the shards that
were asked for longest ago make space. What a killed fetch leaves is a `.partial` file, which the next fetch removes.
"""

from __future__ import annotations

import hashlib
import os
import sys
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any, BinaryIO, TypeVar

import fsspec
import numpy as np

from dataset.store.environments import Reading
from dataset.store.index import INDEX, Index, Shard, columns_path
from dataset.store.reader import ShardReader
from dataset.store.record import Record
from utils.console import progress
from utils.errors import DataError, UsageError
from utils.files import disk_is_full, lock, make_folder, write_atomically

_ATTEMPTS, _PAUSE = 3, 2.0  # of a fetch; seconds, doubled each time
_CHUNK = 1 << 24  # bytes a request: enough that its delay does not count
_SLOW = 10  # seconds of a fetch that are worth a line
_CHECK_EVERY = 64  # records, between two checks for shards that made space

Result = TypeVar("Result")


def is_url(path: str) -> bool:
    """Whether ``path`` is for fsspec, such as `s3://bucket/imagenet`."""
    return "://" in path


def open_remote(url: str, cache: Path, limit: int) -> RemoteReader:
    """The split at ``url``, through a cache of ``limit`` bytes in the folder ``cache``.

    Raises:
        UsageError: the URL leads nowhere, its package or credentials are missing, or ``cache`` cannot be written to.
        DataError: the index or a column file cannot be fetched whole.
    """
    content = _fetched(f"{url}/{INDEX}", lambda file: file.read())
    index = Index.parse(content, f"{url}/{INDEX}")
    folder = cache / hashlib.sha256(url.encode() + content).hexdigest()[:16]
    make_folder(folder, "data.cache_path")
    with lock(folder / ".lock", wait=True):
        write_atomically(folder / INDEX, content)
        for shard in progress(iterable=index.shards, desc=f"fetching the index of {url}", unit="file"):
            _fetch_columns(url, columns_path(folder / shard.file), shard.columns_sha256)
    return RemoteReader(url, folder, ShardCache(url, folder, limit))


class RemoteReader(ShardReader):
    """A split whose shards come through a cache."""

    _mend = "delete this file, and it is fetched again"

    def __init__(self, url: str, folder: Path, cache: ShardCache) -> None:
        self._url, self._cache, self._reads = url, cache, 0
        super().__init__(folder)

    def mapped(self, index: int) -> Record:
        """The record at ``index``, copied, for its shard may be closed to make space."""
        record = super().mapped(index)
        record = replace(record, image=bytes(record.image))
        self._reads += 1
        if self._reads % _CHECK_EVERY == 0:
            self._close_removed()
        return record

    def prepare(self, open_shards: int | None) -> None:
        """Compare the cache with what is read at a time: all shards, or twice ``open_shards`` of them.

        Raises:
            UsageError: it is too small.
        """
        super().prepare(open_shards)
        sizes = sorted((shard.bytes for shard in self.index.shards), reverse=True)
        beside = sum(path.stat().st_size for path in (self.folder / INDEX, *self.folder.glob("*.npz")))
        needed = beside + sum(sizes if open_shards is None else sizes[: 2 * open_shards])
        if needed > self._cache.limit:
            ways = "data.order=blocks reads a few shards at a time" if open_shards is None else "lower data.open_shards"
            raise UsageError(
                f"data.cache_gb={self._cache.limit / 1e9:g}: {needed / 1e9:.3g} GB are needed at a time; "
                f"raise it, or {ways}"
            )

    def reading(self, groups: list[list[int]], batches: Iterator[np.ndarray]) -> Generator[np.ndarray]:
        """The ``batches`` of samples as they are; while one group of shards is read, the next is fetched."""
        group_of = {shard: number for number, group in enumerate(groups) for shard in group}
        fetcher, reading = _Fetcher(self._cache), None
        try:
            for index in batches:
                group = group_of[self._place(int(index[0]) % len(self))[0]]
                if group != reading:
                    reading = group
                    # Those being read once more: they count as asked for later than the last group, which makes space.
                    fetcher.ask(self.index.shards[shard] for group in groups[reading : reading + 2] for shard in group)
                yield index
        finally:
            fetcher.stop()

    def _name(self, shard: Shard) -> str:
        return f"{self._url}/{shard.file}"

    def _locate(self, shard: Shard) -> Path:
        return self._cache.path(shard)

    def _open(self, number: int) -> Reading:
        self._close_removed()
        while True:
            path = self._locate(self.index.shards[number])
            try:
                return Reading(path, self._mend, readahead=self._readahead)
            except DataError:  # in a small cache it may have had to go already
                if path.exists():
                    raise

    def _close_removed(self) -> None:
        """Close shards that made space: the disk keeps a file for as long as it is open."""
        self._files.close(lambda number: not (self.folder / self.index.shards[number].file).exists())

    def _check_size(self, shard: Shard) -> None:
        pass  # the cache does when it fetches


class ShardCache:
    """Shards of one split, in a folder beside those of other splits.

    Attributes:
        limit: bytes of all files in all these folders.
    """

    def __init__(self, url: str, folder: Path, limit: int) -> None:
        self._url, self._folder, self.limit = url, folder, limit

    def path(self, shard: Shard, *, wait: bool = True) -> Path:
        """A local copy of the shard, fetched and checked if it is not there.

        Raises:
            DataError: it cannot be fetched whole, or there is no space for it; or another process is at it and ``wait``
                is off.
        """
        target = self._folder / shard.file
        try:
            with lock(target.with_suffix(".lock"), f"{target} is being fetched", wait=wait):
                if target.exists() and target.stat().st_size == shard.bytes:
                    os.utime(target)
                else:
                    self._fetch(shard, target)
        except UsageError as error:  # a run at work: what was there at its start has gone
            raise DataError(str(error)) from None
        except OSError as error:
            full = "the disk is full; free some space, or lower data.cache_gb"
            raise DataError(f"{target}: {full if disk_is_full(error) else error}") from None
        return target

    def _fetch(self, shard: Shard, target: Path) -> None:
        url, start = f"{self._url}/{shard.file}", time.monotonic()
        partial = _partial(target)
        target.unlink(missing_ok=True)
        self._make_room(shard, partial)
        try:
            with partial.open("r+b") as file:
                _download(url, file, shard.sha256)
                os.fsync(file.fileno())
            with self._alone():  # so that no count of the files misses it
                partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)
        if (seconds := time.monotonic() - start) > _SLOW:
            print(f"fetched {url}, {shard.bytes / 1e6:,.0f} MB, in {seconds:.0f} s", file=sys.stderr)

    def _make_room(self, shard: Shard, partial: Path) -> None:
        """Take the shard's bytes by a sparse file, once those asked for longest ago are out of the way."""
        while True:
            with self._alone():
                fetched = {path for path in self._folder.parent.glob("*/*.lmdb.partial") if _is_being_fetched(path)}
                for path in set(self._folder.parent.glob("*/*.lmdb.partial")) - fetched - {partial}:
                    path.unlink(missing_ok=True)  # its process was killed
                partial.unlink(missing_ok=True)
                files = dict(filter(None, map(_status, self._folder.parent.glob("*/*"))))
                shards = {path: status for path, status in files.items() if path.suffix == ".lmdb"}
                space = self.limit - sum(status.st_size for status in files.values())
                if space + sum(status.st_size for status in shards.values()) >= shard.bytes:
                    for path in sorted(shards, key=lambda path: shards[path].st_mtime_ns):
                        if space >= shard.bytes:
                            break
                        path.unlink()
                        space += shards[path].st_size
                    with partial.open("wb") as file:
                        file.truncate(shard.bytes)
                    return
            if not fetched - {partial}:
                size = f"{shard.bytes / 1e9:.3g} GB"
                raise DataError(
                    f"data.cache_gb={self.limit / 1e9:g}: no space for the {size} of {shard.file}; raise it"
                )
            time.sleep(0.1)  # those that others fetch can go once they are whole

    def _alone(self) -> AbstractContextManager[None]:
        return lock(self._folder.parent / ".lock", wait=True)


class _Fetcher(Thread):
    """Fetches shards in the background. What goes wrong is left to those who read them, who meet and report it."""

    def __init__(self, cache: ShardCache) -> None:
        super().__init__(daemon=True, name="fetch ahead")
        self._cache, self._stopped = cache, False
        self._asked: SimpleQueue[Shard | None] = SimpleQueue()
        self.start()

    def ask(self, shards: Iterable[Shard]) -> None:
        """Fetch these too, in turn."""
        for shard in shards:
            self._asked.put(shard)

    def stop(self) -> None:
        """End, after the current shard."""
        self._stopped = True
        self._asked.put(None)

    def run(self) -> None:
        """Fetch."""
        while (shard := self._asked.get()) is not None and not self._stopped:
            with suppress(DataError):
                self._cache.path(shard, wait=False)  # the ranks of a machine share the work


def _partial(target: Path) -> Path:
    return target.with_name(f"{target.name}.partial")


def _is_being_fetched(partial: Path) -> bool:
    try:
        with lock(partial.with_suffix("").with_suffix(".lock")):
            return False
    except UsageError:
        return True


def _status(path: Path) -> tuple[Path, os.stat_result] | None:
    try:
        return path, path.stat()
    except FileNotFoundError:  # another split's columns are given their name at this moment
        return None


def _fetch_columns(url: str, target: Path, sha256: str) -> None:
    if not target.exists() or hashlib.sha256(target.read_bytes()).hexdigest() != sha256:
        write_atomically(target, lambda file: _download(f"{url}/{target.name}", file, sha256))


def _download(url: str, out: BinaryIO, sha256: str) -> None:
    """Write a file of known checksum to ``out``; a second time if the line garbled it."""

    def copy(source: BinaryIO) -> str:
        digest = hashlib.sha256()
        out.seek(0)
        while chunk := source.read(_CHUNK):
            digest.update(chunk)
            out.write(chunk)
        out.truncate()
        return digest.hexdigest()

    if sha256 not in (_fetched(url, copy) for _ in range(2)):
        raise DataError(f"{url} is not what its index describes: upload it again")


def _fetched(url: str, use: Callable[[Any], Result]) -> Result:
    """``use`` of the opened file, tried again when the connection fails.

    Raises:
        UsageError: there is no such file, protocol or package, or we may not read it.
        DataError: the connection fails each time.
    """
    for attempt in range(_ATTEMPTS):
        try:
            with fsspec.open(url, "rb") as file:
                return use(file)
        except Exception as error:  # every protocol has errors of its own
            if disk_is_full(error):
                raise
            if problem := _to_mend(url, error):
                raise UsageError(f"data.data_path: {problem}") from None
            failure = error
        if attempt + 1 < _ATTEMPTS:
            time.sleep(_PAUSE * 2**attempt)
    cause = failure.__cause__ or failure
    raise DataError(
        f"{url} cannot be fetched ({type(cause).__name__}: {cause}): check the network and run the same command again"
    )


def _to_mend(url: str, error: BaseException) -> str | None:
    """What the user can mend; None for a failed connection, where another attempt may help."""
    if isinstance(error, ImportError):
        package = getattr(error.__cause__, "name", None)
        return f"{url}: {error}" + (f"; pip install {package}" if package else "")
    if url.startswith("http") and isinstance(error, FileNotFoundError) and error.__cause__:
        error = error.__cause__  # fsspec raises it for everything that a web server may answer
    status = getattr(error, "status", None)
    if isinstance(error, PermissionError) or "Credentials" in type(error).__name__ or status in (401, 403):
        return f"{url} may not be read with the credentials that this machine has: {error}"
    if isinstance(error, FileNotFoundError) or status == 404:
        return f"there is no {url}; upload the whole folder that img2lmdb.py wrote"
    return f"{url}: {error}" if isinstance(error, ValueError) else None
