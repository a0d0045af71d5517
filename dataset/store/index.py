"""A split as a folder of LMDB shards that describes itself.

::

    train/index.json          format, version, split, target kind, classes, counts, and a row a shard
    train/report.txt          for people: what was converted, kept untiled or left out
    train/00000.lmdb          records under 4-byte big-endian keys 0, 1, 2, ... (one LMDB file, no lock file)
    train/00000.columns.npz   one entry a record: key, label, height, width, crc32

`index.json` is written last: a folder without it is not a finished split. A reader compares every shard's size with
the index before it maps anything, because a truncated LMDB file is a SIGBUS and not an error, and compares each
record's CRC-32, because LMDB returns a flipped bit silently.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from utils.errors import DataError
from utils.files import parsed, sha256, write_atomically

FORMAT, VERSION = "limbeck-shards", 1
INDEX, REPORT = "index.json", "report.txt"
TARGETS = ("single", "multi", "detection")
_CHECKSUM = "sha256"  # the last field of an index: of the text before its comma


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
    """What `index.json` holds of a split."""

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
            values = parsed(content)
        except ValueError as error:
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


def describe(path: Path, records: int) -> Shard:
    """The index row of a finished shard."""
    return Shard(path.name, records, path.stat().st_size, sha256(path), sha256(columns_path(path)))


def columns_path(shard: Path) -> Path:
    """`00000.columns.npz` for `00000.lmdb`."""
    return shard.with_suffix(".columns.npz")


def lmdb_key(number: int) -> bytes:
    """The key in its shard of record ``number`` there."""
    return number.to_bytes(4, "big")
