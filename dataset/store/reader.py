"""Reading a finished split."""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from pathlib import Path

import lmdb
import numpy as np
from isal.isal_zlib import crc32

from dataset.store.columns import parse_columns
from dataset.store.environments import OpenFiles, Reading
from dataset.store.index import Index, Shard, columns_path, describe, lmdb_key
from dataset.store.record import Record, split_ignored, unpack
from dataset.store.samples import Samples
from utils.errors import DataError


class ShardReader(Samples):
    """A finished split. Shards are opened at the first `read` in each process, never before a fork.

    Attributes:
        sizes: int32 [N, 2], height and width of each stored image.
        labels: int32 [N], or int8 [N, C].
        folder: of the split.
        index: of the split.

    Raises:
        DataError: a file is missing, of another size than the index says, or its columns are damaged.
    """

    sizes: np.ndarray
    _readahead = False
    _mend = "copy it again, or pack into an empty folder"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.index = Index.read(folder)
        self.classes = self.index.classes
        for shard in self.index.shards:
            self._check_size(shard)
        tables = [self._open_columns(shard) for shard in self.index.shards]
        self._starts = np.cumsum([0, *(shard.records for shard in self.index.shards)])
        self._crc32 = np.concatenate([table["crc32"] for table in tables])
        self.sizes = np.stack(
            [np.concatenate([table[side] for table in tables]) for side in ("height", "width")], axis=1
        )
        counts = np.concatenate([table["label_count"] for table in tables])
        self.labels = np.concatenate([table["label"] for table in tables])
        if self.index.target != "single":
            classes, present = split_ignored(self.labels)
            self.labels = np.zeros((len(counts), len(self.classes)), np.int8)
            self.labels[np.repeat(np.arange(len(counts)), counts), classes] = present
        self._files = OpenFiles()

    def __len__(self) -> int:
        return self.index.records

    def read(self, index: int) -> Record:
        """The record at ``index``.

        Raises:
            DataError: as `mapped`.
        """
        record = self.mapped(index)
        return replace(record, image=bytes(record.image))

    def mapped(self, index: int) -> Record:
        """The record at ``index``, its image a memoryview of the shard, valid until `close`.

        It is a copy where there are more shards than may be open, for the shard may be closed at the next call.

        Raises:
            DataError: its bytes are not those that were packed.
        """
        number, local = self._place(index)
        shard = self.index.shards[number]
        try:
            value = self._files.transaction(number, self._open).get(lmdb_key(local))
        except lmdb.Error as error:
            raise DataError(f"{self.folder / shard.file}, record {local}: {error}; {self._mend}") from None
        if value is None or crc32(value) != self._crc32[index]:
            raise DataError(f"{self.folder / shard.file}, record {local}: damaged on disk; {self._mend}")
        try:
            record = unpack(value)
        except DataError as error:  # another program wrote it
            raise DataError(f"{self.folder / shard.file}, record {local}: {error}") from None
        return record if len(self.index.shards) <= self._files.most else replace(record, image=bytes(record.image))

    def check(self, index: int) -> None:
        """Check that the shard of a sample is still as long as it was.

        Raises:
            DataError: it is not.
        """
        self._check_size(self.index.shards[self._place(index)[0]])

    def describe(self, index: int) -> str:
        """How to find a sample again: its shard, its record there, its key."""
        number, local = self._place(index)
        shard = self.index.shards[number]
        return f"{self._name(shard)}, record {local} ({self._keys(shard)[local]})"

    def keys(self) -> list[str]:
        """Every record's key, in order."""
        return [name for shard in self.index.shards for name in self._keys(shard)]

    @property
    def packed(self) -> tuple[Path, Index]:
        """Its folder and its index."""
        return self.folder, self.index

    @property
    def shards(self) -> list[int]:
        """How many records each shard holds, in order."""
        return [shard.records for shard in self.index.shards]

    def prepare(self, open_shards: int | None) -> None:
        """Let the system read on behind each record where stretches are long: where few shards are read at a time."""
        self._readahead = open_shards is not None

    def verify(self) -> None:
        """Compare every shard's checksum with the index.

        Raises:
            DataError: naming the file that differs.
        """
        for shard in self.index.shards:
            if describe(self._locate(shard), shard.records) != shard:
                raise DataError(f"{self.folder / shard.file} is not what the index describes; pack or copy it again")

    def close(self) -> None:
        """Release the shards, so that a forked process may open them."""
        self._files.close()

    def _content(self) -> bytes:
        rows = (f"{shard.records} {shard.sha256} {shard.columns_sha256}\n" for shard in self.index.shards)
        return "".join(rows).encode()

    def _place(self, index: int) -> tuple[int, int]:
        """The shard of a sample and its record there."""
        number = int(np.searchsorted(self._starts, index, side="right")) - 1
        return number, index - int(self._starts[number])

    def _keys(self, shard: Shard) -> list[str]:
        names = self._open_columns(shard)["key"].tobytes().split(b"\0")
        return [os.fsdecode(name) for name in names] if shard.records else []

    def _open(self, number: int) -> Reading:
        return Reading(self._locate(self.index.shards[number]), self._mend, readahead=self._readahead)

    def _locate(self, shard: Shard) -> Path:
        return self.folder / shard.file

    def _name(self, shard: Shard) -> str:
        return str(self.folder / shard.file)

    def _check_size(self, shard: Shard) -> None:
        path = self.folder / shard.file
        size = path.stat().st_size if path.exists() else None
        if size is None:
            raise DataError(f"{path} is missing: copy it again, or pack the split again")
        if size != shard.bytes:
            raise DataError(
                f"{path} has {size} bytes, the index says {shard.bytes}: copy it again, or pack into an empty folder"
            )

    def _open_columns(self, shard: Shard) -> dict[str, np.ndarray]:
        path = columns_path(self.folder / shard.file)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            raise DataError(f"{path} is missing; {self._mend}") from None
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror}") from None
        if hashlib.sha256(data).hexdigest() != shard.columns_sha256:
            raise DataError(f"{path} is not what the index describes; {self._mend}")
        try:
            return parse_columns(data, shard.records, len(self.classes), single=self.index.target == "single")
        except DataError as error:
            raise DataError(f"{path}: {error}; {self._mend}") from None
