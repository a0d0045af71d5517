"""Shards behind a URL: whole ones are fetched into a folder of this machine, checked, and read from there.

Every rank and decoding process of a machine shares the folder through file locks. It is bounded: the shards that were
opened longest ago make room. A fetch that is killed leaves a `.partial` file, which the next fetch removes.
"""

from __future__ import annotations

import errno
import hashlib
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any, TypeVar

import fsspec
import lmdb

from dataset.record import Record
from dataset.shards import INDEX, Index, Shard, ShardReader, columns_path, open_readonly
from utils.console import progress
from utils.errors import DataError, UsageError
from utils.files import disk_is_full, lock, write_atomically

_ATTEMPTS, _PAUSE = 3, 2.0  # of a fetch; seconds, doubled each time

Result = TypeVar("Result")


def is_url(path: str) -> bool:
    """Whether ``path`` is for fsspec, such as `s3://bucket/imagenet`."""
    return "://" in path


def open_remote(url: str, cache: Path, limit: int) -> RemoteReader:
    """The split at ``url``, through a cache of ``limit`` bytes in the folder ``cache``.

    Raises:
        UsageError: no such protocol, its package is missing, or there is no split.
        DataError: the index or a column file cannot be fetched whole.
    """
    index_bytes = _retried(f"{url}/{INDEX}", lambda file: file.read())
    folder = cache / hashlib.sha256(url.encode() + index_bytes).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    with lock(folder / ".lock", wait=True):
        write_atomically(folder / INDEX, index_bytes)
        index = Index.read(folder)
        for shard in progress(iterable=index.shards, desc=f"fetching the index of {url}", unit="file"):
            _fetch_columns(url, columns_path(folder / shard.file), shard.columns_sha256)
    return RemoteReader(folder, ShardCache(url, cache, folder, limit))


class RemoteReader(ShardReader):
    """A split whose shards come through a cache."""

    def __init__(self, folder: Path, cache: ShardCache) -> None:
        self._cache = cache
        self._ahead: FetchAhead | None = None
        super().__init__(folder)

    def check_room(self, open_shards: int | None) -> None:
        """Compare the cache with what is read at a time: all shards, or twice ``open_shards`` of them.

        Raises:
            UsageError: it is too small.
        """
        sizes = sorted((shard.bytes for shard in self.index.shards), reverse=True)
        needed = sum(sizes if open_shards is None else sizes[: 2 * open_shards])
        if needed > self._cache.limit:
            ways = "data.order=blocks reads a few shards at a time" if open_shards is None else "lower data.open_shards"
            raise UsageError(
                f"data.cache_gb={self._cache.limit / 1e9:g}: {needed / 1e9:.3g} GB of shards are needed at a time; "
                f"raise it, or {ways}"
            )

    def fetch_ahead(self, shards: list[int]) -> None:
        """Fetch these shards in the background, in turn; what goes wrong is reported by whoever reads them."""
        if self._ahead is None:
            self._ahead = FetchAhead(self._cache)
        for number in shards:
            self._ahead.queue.put(self.index.shards[number])

    def view(self, index: int) -> Record:
        """The record at ``index``, copied, for its shard may be closed to make room."""
        record = super().view(index)
        return replace(record, image=bytes(record.image))

    def close(self) -> None:
        """Release the shards, and fetch no more."""
        super().close()
        if self._ahead is not None:
            self._ahead.stop()
            self._ahead = None

    def __getstate__(self) -> dict[str, object]:
        return {**super().__getstate__(), "_ahead": None}

    def _open(self, shard: Shard) -> lmdb.Environment:
        self._close_where(lambda number: not (self.folder / self.index.shards[number].file).exists())
        while True:
            path = self._cache.path(shard)
            try:
                return open_readonly(path, readahead=self.readahead)
            except lmdb.Error:  # in a small cache it may have had to go already
                if path.exists():
                    raise

    def _check_size(self, shard: Shard) -> None:
        pass  # the cache does when it fetches


class FetchAhead(Thread):
    """Fetches the shards of its queue until it is stopped, or until something goes wrong that the reader meets too."""

    def __init__(self, cache: ShardCache) -> None:
        super().__init__(daemon=True, name="fetch ahead")
        self.queue: SimpleQueue[Shard | None] = SimpleQueue()
        self._cache, self._stopped = cache, False
        self.start()

    def run(self) -> None:
        """Fetch."""
        with suppress(DataError, UsageError, OSError):
            while (shard := self.queue.get()) is not None and not self._stopped:
                self._cache.path(shard)

    def stop(self) -> None:
        """End after the shard in hand."""
        self._stopped = True
        self.queue.put(None)
        self.join()


class ShardCache:
    """Shards of one split in a folder that may hold those of others too.

    Attributes:
        limit: bytes of all shards below the cache's root.
    """

    def __init__(self, url: str, root: Path, folder: Path, limit: int) -> None:
        self._url, self._root, self._folder = url, root, folder
        self.limit = limit

    def path(self, shard: Shard) -> Path:
        """A local copy of the shard, fetched and checked if it is not there.

        Raises:
            DataError: it cannot be fetched whole, or there is no room for it.
        """
        target = self._folder / shard.file
        with lock(target.with_suffix(".lock"), wait=True):
            if target.exists() and target.stat().st_size == shard.bytes:
                os.utime(target)
            else:
                self._fetch(shard, target)
        return target

    def _fetch(self, shard: Shard, target: Path) -> None:
        url = f"{self._url}/{shard.file}"
        partial = target.with_suffix(".lmdb.partial")
        self._make_room(shard.bytes, target, partial)
        try:
            for left in (1, 0):  # a line may garble once
                if _retried(url, lambda file: _copy(file, partial)) == shard.sha256:
                    with lock(self._root / ".lock", wait=True):  # so that no count of the files misses it
                        partial.replace(target)
                    return
                if not left:
                    raise DataError(f"{url} is not what its index describes: upload the shard again")
        except OSError as error:
            if disk_is_full(error):
                raise DataError(f"{target}: the disk is full; free some space, or lower data.cache_gb") from None
            raise
        finally:
            partial.unlink(missing_ok=True)

    def _make_room(self, size: int, target: Path, partial: Path) -> None:
        """Remove the shards opened longest ago until ``size`` bytes fit, and take those by a sparse file."""
        if size > self.limit:
            raise DataError(
                f"data.cache_gb={self.limit / 1e9:g}: {target.name} alone has {size / 1e9:.3g} GB; raise it"
            )
        with lock(self._root / ".lock", wait=True):
            target.unlink(missing_ok=True)
            files = [found for path in self._root.glob("*/*.lmdb*") if path != partial and (found := _status(path))]
            total = sum(status.st_size for _, status in files)
            for path, status in sorted(files, key=lambda file: file[1].st_mtime_ns):
                if total + size <= self.limit:
                    break
                if path.suffix == ".partial" and _is_locked(path.with_suffix("").with_suffix(".lock")):
                    continue
                path.unlink(missing_ok=True)
                total -= status.st_size
            with partial.open("wb") as file:
                file.truncate(size)


def _status(path: Path) -> tuple[Path, os.stat_result] | None:
    try:
        return path, path.stat()
    except FileNotFoundError:  # fetched or removed at this moment
        return None


def _is_locked(path: Path) -> bool:
    try:
        with lock(path):
            return False
    except UsageError:
        return True


def _copy(source: Any, target: Path) -> str:
    """Copy a file; its SHA-256."""
    digest = hashlib.sha256()
    with target.open("r+b") as out:
        while chunk := source.read(1 << 22):
            digest.update(chunk)
            out.write(chunk)
        out.truncate()
    return digest.hexdigest()


def _fetch_columns(url: str, target: Path, sha256: str) -> None:
    if target.exists() and hashlib.sha256(target.read_bytes()).hexdigest() == sha256:
        return
    content = _retried(f"{url}/{target.name}", lambda file: file.read())
    if hashlib.sha256(content).hexdigest() != sha256:
        raise DataError(f"{url}/{target.name} is not what its index describes: upload the split again")
    write_atomically(target, content)


def _retried(url: str, use: Callable[[Any], Result]) -> Result:
    """``use`` of the opened file, tried again when the connection fails."""
    for attempt in range(_ATTEMPTS):
        try:
            with fsspec.open(url, "rb") as file:
                return use(file)
        except FileNotFoundError:
            raise UsageError(
                f"data.data_path: there is no {url}; upload the whole folder that img2lmdb.py wrote"
            ) from None
        except (ImportError, ValueError, PermissionError) as error:  # a missing package, protocol or permission
            raise UsageError(f"data.data_path: {url}: {error}") from None
        except Exception as error:  # every protocol has errors of its own
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise
            if attempt + 1 == _ATTEMPTS:
                named = f"{type(error).__name__}: {error}"
                raise DataError(f"{url} cannot be fetched ({named}); run the same command again") from None
            time.sleep(_PAUSE * 2**attempt)
    raise AssertionError
