"""LMDB folders that the WSLD repository's own scripts wrote, read as they are.

Key: `class/file` in ASCII. Value: msgpack of the JPEG bytes followed by the label as uint16, little-endian. A split is
one LMDB folder, or ("patched") a folder of such folders. The format holds neither checksums nor class names.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import lmdb
import msgpack
import numpy as np

from dataset.sources.walk import is_of_a_system
from dataset.store.environments import OpenFiles, Reading, check_pages
from dataset.store.names import PackedNames
from dataset.store.record import Record
from dataset.store.samples import Samples
from utils.errors import DataError

_MEND = "copy it again"


def is_wsld_folder(folder: Path) -> bool:
    """Whether ``folder`` or a folder in it is an LMDB environment."""
    return bool(_environments(folder))


class WsldReader(Samples):
    """One split in WSLD's format, in the order of its keys.

    Attributes:
        classes: the class folders, by label.
        labels: int32 [N].

    Raises:
        DataError: an environment is truncated or empty, or labels and class folders disagree.
    """

    def __init__(self, folder: Path) -> None:
        self._folders = _environments(folder)
        folders: list[int] = []
        keys: list[bytes] = []
        labels: list[int] = []
        names: dict[int, str] = {}
        for number, path in enumerate(self._folders):
            for key, label in _keys_and_labels(path):
                name = os.fsdecode(key).rpartition("/")[0]
                if names.setdefault(label, name) != name:
                    raise DataError(
                        f"{path}: label {label} stands for both {names[label]} and {name}: pack the images again"
                    )
                folders.append(number)
                keys.append(key)
                labels.append(label)
        if not names:
            raise DataError(f"{folder} holds no records")
        self._folder_of, self._keys = np.array(folders), PackedNames(keys)
        self.labels = np.array(labels, np.int32)
        self.classes = tuple(names.get(label, str(label)) for label in range(max(names) + 1))
        self._files = OpenFiles()

    def __len__(self) -> int:
        return len(self._keys)

    def read(self, index: int) -> Record:
        """The record at ``index``."""
        number, key = int(self._folder_of[index]), self._keys[index]
        transaction = self._files.transaction(number, lambda number: Reading(self._folders[number], _MEND))
        try:
            blob = msgpack.unpackb(transaction.get(key), raw=True)  # msgpack before 1.0 wrote `raw`
            if not isinstance(blob, bytes):
                raise TypeError(f"a {type(blob).__name__} in place of bytes")
            return Record(os.fsdecode(key), blob[:-2], int(np.frombuffer(blob[-2:], "<u2")[0]))
        except (ValueError, TypeError, IndexError, msgpack.UnpackException, lmdb.Error) as error:
            raise DataError(f"{self._folders[number]}, key {os.fsdecode(key)}: not a WSLD record ({error})") from None

    def check(self, index: int) -> None:
        """Check that the file of a sample is still whole.

        Raises:
            DataError: it is not.
        """
        check_pages(self._folders[int(self._folder_of[index])] / "data.mdb", _MEND)

    def keys(self) -> list[str]:
        """Every record's key, in order."""
        return [os.fsdecode(key) for key in self._keys]

    def close(self) -> None:
        """Release the environments, so that a forked process may open them."""
        self._files.close()


def _keys_and_labels(path: Path) -> Iterator[tuple[bytes, int]]:
    with closing(Reading(path, _MEND)) as reading:
        try:
            for key, value in reading.transaction.cursor():
                yield bytes(key), int.from_bytes(bytes(value[-2:]), "little")
        except lmdb.Error as error:
            raise DataError(f"{path / 'data.mdb'}: {error}; {_MEND}") from None


def _environments(folder: Path) -> list[Path]:
    if (folder / "data.mdb").is_file():
        return [folder]
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if (path / "data.mdb").is_file() and not is_of_a_system(path.name))
