"""A split as a folder of LMDB shards that describes itself.

::

    train/index.json          format, version, split, target kind, classes, counts, and a row a shard
    train/00000.lmdb          records under 4-byte big-endian keys 0, 1, 2, ... (one LMDB file, no lock file)
    train/00000.columns.npz   one entry a record: key, label, height, width, crc32

`index.json` is written last: a folder without it is not a finished split. A reader compares every shard's size with
the index before it maps anything, because a truncated LMDB file is a SIGBUS and not an error, and compares each
record's CRC-32, because LMDB returns a flipped bit silently.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from types import TracebackType
from typing import Protocol

import lmdb
import numpy as np
from isal.isal_zlib import crc32

from dataset.store.columns import parse_columns
from dataset.store.environments import OpenFiles, Reading
from dataset.store.record import Record, labels_of, pack, unpack
from utils.errors import DataError
from utils.files import disk_is_full, sha256, sync_folder, write_atomically

FORMAT, VERSION = "limbeck-shards", 1
INDEX = "index.json"
TARGETS = ("single", "multi", "detection")
_CHECKSUM = "sha256"  # the last field of an index: of the text before its comma
_COMMIT_EVERY = 500  # records a transaction; 100 to 1000 is fastest


class Samples(Protocol):
    """What a loader reads from: LMDB shards, a WSLD folder or plain image files."""

    classes: tuple[str, ...]
    labels: np.ndarray  # int [N]; of multi-label data bool [N, C]

    def __len__(self) -> int: ...

    def read(self, index: int) -> Record:
        """The record at ``index``; DataError when it is damaged. A method `view` may give it without a copy."""
        ...


@dataclass(frozen=True)
class Shard:
    """One row of the index."""

    file: str
    records: int
    bytes: int
    sha256: str
    columns_sha256: str


@dataclass(frozen=True)
class Index:
    """What `index.json` says of a split."""

    split: str
    target: str  # one of TARGETS
    classes: tuple[str, ...]
    records: int
    shards: tuple[Shard, ...]
    packing: dict[str, object] = field(default_factory=dict)  # how the records were made
    format: str = FORMAT
    version: int = VERSION

    def write(self, folder: Path) -> None:
        """Write `index.json`: the split is finished."""
        text = json.dumps(asdict(self), indent=1, ensure_ascii=True).encode().removesuffix(b"\n}")
        digest = hashlib.sha256(text).hexdigest()
        write_atomically(folder / INDEX, text + f',\n "{_CHECKSUM}": "{digest}"\n}}'.encode())

    @staticmethod
    def read(folder: Path) -> Index:
        """The index of ``folder``.

        Raises:
            DataError: it is missing, damaged or of another version.
        """
        path = folder / INDEX
        try:
            return Index.parse(path.read_bytes(), str(path))
        except FileNotFoundError:
            raise DataError(f"{folder} holds no {INDEX}: finish packing it with dataset/img2lmdb.py") from None
        except OSError as error:
            raise DataError(f"{path}: {error}") from None

    @staticmethod
    def parse(content: bytes, name: str) -> Index:
        """The index in ``content``, which stands in the file ``name``.

        Raises:
            DataError: it is damaged or of another version.
        """
        try:
            values = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{name}: {error}") from None
        if not isinstance(values, dict) or values.get("format") != FORMAT or values.get("version") != VERSION:
            raise DataError(f"{name} is not a {FORMAT} index of version {VERSION}: pack the data again")
        digest = values.pop(_CHECKSUM, None)  # of all that stands before it; indexes written before have none
        if digest is not None and digest != hashlib.sha256(content.rpartition(b",")[0]).hexdigest():
            raise DataError(f"{name} is damaged: its checksum differs; copy it again, or pack the split again")
        try:
            shards = tuple(Shard(**row) for row in values.pop("shards"))
            index = Index(**{**values, "shards": shards, "classes": tuple(values["classes"])})
        except (TypeError, KeyError) as error:
            raise DataError(f"{name}: a field is missing, unknown or of another type ({error})") from None
        if not index.is_sound():
            raise DataError(f"{name} is damaged: its fields disagree; copy it again, or pack the split again")
        return index

    def is_sound(self) -> bool:
        """Whether every field is of its type, and they agree."""
        named = all(type(name) is str for name in (self.split, *self.classes))
        rows = [(getattr(shard, column.name), column.type) for shard in self.shards for column in fields(Shard)]
        if not (named and rows and all(type(value).__name__ == kind for value, kind in rows)):
            return False
        plain = all(Path(shard.file).name == shard.file for shard in self.shards)  # and leads to no other folder
        counts = [shard.records for shard in self.shards]
        counted = min(counts) >= 0 and sum(counts) == self.records
        return plain and counted and self.target in TARGETS and isinstance(self.packing, dict)


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
        self._pending.append((_lmdb_key(len(columns["key"])), value))
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


def describe(path: Path, records: int) -> Shard:
    """The index row of a finished shard."""
    return Shard(path.name, records, path.stat().st_size, sha256(path), sha256(columns_path(path)))


def columns_path(shard: Path) -> Path:
    """`00000.columns.npz` for `00000.lmdb`."""
    return shard.with_suffix(".columns.npz")


class ShardReader:
    """A finished split. Shards are opened at the first `read` in each process, never before a fork.

    Attributes:
        classes: C class names; the position is the label.
        sizes: int32 [N, 2], height and width of each stored image.
        labels: int32 [N] for single-label data, bool [N, C] for multi-label and detection.
        readahead: whether the system reads on behind each record; for long stretches.

    Raises:
        DataError: a file is missing, of another size than the index says, or its columns are damaged.
    """

    readahead = False
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
            present = np.zeros((len(counts), len(self.classes)), bool)
            present[np.repeat(np.arange(len(counts)), counts), self.labels] = True
            self.labels = present
        self._files = OpenFiles()

    def __len__(self) -> int:
        return self.index.records

    def read(self, index: int) -> Record:
        """The record at ``index``.

        Raises:
            DataError: as `view`.
        """
        record = self.view(index)
        return replace(record, image=bytes(record.image))

    def view(self, index: int) -> Record:
        """The record at ``index``, its image a view of the shard's memory, which holds until `close`.

        It is a copy where there are more shards than may be open, for the shard may be closed at the next call.

        Raises:
            DataError: its bytes are not those that were packed.
        """
        number, local = self._place(index)
        shard = self.index.shards[number]
        try:
            value = self._files.transaction(number, self._open).get(_lmdb_key(local))
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
        """Look whether the shard of a sample is still as long as it was.

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

    def _place(self, index: int) -> tuple[int, int]:
        """The shard of a sample and its record there."""
        number = int(np.searchsorted(self._starts, index, side="right")) - 1
        return number, index - int(self._starts[number])

    def _keys(self, shard: Shard) -> list[str]:
        names = self._open_columns(shard)["key"].tobytes().split(b"\0")
        return [os.fsdecode(name) for name in names] if shard.records else []

    def _open(self, number: int) -> Reading:
        return Reading(self._locate(self.index.shards[number]), self._mend, readahead=self.readahead)

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


def _lmdb_key(number: int) -> bytes:
    return number.to_bytes(4, "big")
