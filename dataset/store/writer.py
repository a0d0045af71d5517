"""Writing a shard, so that it is whole or not there."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType

import lmdb
import numpy as np
from isal.isal_zlib import crc32

from dataset.store.index import columns_path, lmdb_key
from dataset.store.record import Record, labels_of, pack
from utils.errors import DataError
from utils.files import disk_is_full, sync_folder, write_atomically

_COMMIT_EVERY = 100  # records a transaction; more leave the cache before they are written


class ShardWriter:
    """Writes one shard under a temporary name; `finish` verifies it and gives it its name.

    Raises:
        DataError: the disk is full, or what was written does not read back.
    """

    def __init__(self, path: Path, map_bytes: int) -> None:
        self.path = path
        self._partial = path.with_name(f"{path.name}.partial")
        self._discard()
        self._columns: dict[str, list] = {"key": [], "label": [], "height": [], "width": [], "crc32": []}
        self._pending: list[tuple[bytes, bytes]] = []
        size = max(map_bytes, 1 << 16)
        try:  # without a lock file, which LMDB maps: a full disk would be a SIGBUS
            self._environment = lmdb.open(str(self._partial), subdir=False, map_size=size, lock=False, sync=False)
        except lmdb.Error as error:
            self._discard()
            raise self._failure(error) from None

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._environment.close()
        self._discard()

    def add(self, record: Record, height: int, width: int) -> None:
        """Append a record whose stored image is ``height`` x ``width`` pixels."""
        value = pack(record)
        columns = self._columns
        self._pending.append((lmdb_key(len(columns["key"])), value))
        columns["key"].append(os.fsencode(record.key))
        columns["label"].append(labels_of(record.target))
        columns["height"].append(height)
        columns["width"].append(width)
        columns["crc32"].append(crc32(value))
        if len(self._pending) == _COMMIT_EVERY:
            self._commit()

    def finish(self) -> int:
        """Commit, read everything back, write the columns and name the shard; returns its number of records."""
        self._commit()
        try:
            self._environment.sync(True)
        except lmdb.Error as error:
            raise self._failure(error) from None
        written = np.asarray(self._columns["crc32"], np.uint32)
        with self._environment.begin(buffers=True) as transaction:
            read = [crc32(value) for value in transaction.cursor().iternext(keys=False)]
        if not np.array_equal(np.asarray(read, np.uint32), written):
            raise DataError(f"{self._partial} does not read back as written: check the disk")
        self._environment.close()
        labels = self._columns["label"]
        columns = {
            "key": np.frombuffer(b"\0".join(self._columns["key"]), np.uint8),  # no file name holds a NUL
            "label": np.fromiter((label for row in labels for label in row), np.int32),
            "label_count": np.fromiter(map(len, labels), np.int32),
            "height": np.asarray(self._columns["height"], np.int32),
            "width": np.asarray(self._columns["width"], np.int32),
            "crc32": written,
        }
        write_atomically(columns_path(self.path), lambda file: np.savez(file, **columns))  # type: ignore[arg-type]
        self._partial.replace(self.path)
        sync_folder(self.path.parent)
        return len(written)

    def _commit(self) -> None:
        while self._pending:
            try:
                with self._environment.begin(write=True) as transaction:
                    for key, value in self._pending:
                        if not transaction.put(key, value, append=True, overwrite=False):
                            raise AssertionError(f"key {key.hex()} is out of order")
                self._pending.clear()
            except lmdb.MapFullError:  # the transaction is rolled back: grow the map and write it again
                self._environment.set_mapsize(2 * self._environment.info()["map_size"])
            except lmdb.Error as error:
                raise self._failure(error) from None

    def _failure(self, error: lmdb.Error) -> DataError:
        if disk_is_full(error):
            return DataError(
                f"{self.path.parent}: the disk is full ({error}). Finished shards are kept: "
                "free some space and run the same command again"
            )
        return DataError(f"{self._partial}: {error}")

    def _discard(self) -> None:
        self._partial.unlink(missing_ok=True)
