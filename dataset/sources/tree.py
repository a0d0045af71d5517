"""The files of a data set below one folder, or inside of one tar file, which is read where it lies."""

from __future__ import annotations

import posixpath
import stat
import tarfile
from dataclasses import dataclass
from pathlib import Path

from utils.errors import DataError
from utils.text import printable


@dataclass(frozen=True)
class Place:
    """Where the bytes of a file are.

    Attributes:
        path: of the file, or of the tar file that holds it.
        size: bytes.
        member: its name in the tar file; empty for a file of its own.
        offset: of its first byte in ``path``.
    """

    path: Path
    size: int
    member: str = ""
    offset: int = 0

    def __str__(self) -> str:
        return printable(f"{self.path}: {self.member}" if self.member else str(self.path))

    def read(self) -> bytes:
        """The bytes. The file is opened for this call alone, so that any process may make it.

        Raises:
            OSError: it cannot be read.
        """
        with self.path.open("rb") as file:
            file.seek(self.offset)
            return file.read(self.size)


@dataclass(frozen=True)
class Tree:
    """Files by their names below ``root``.

    Attributes:
        root: a folder, or a tar file.
        members: of a tar file, by their names below the folder in it that counts; None for a folder.
    """

    root: Path
    members: dict[str, Place] | None = None

    def find(self, name: str) -> Place | None:
        """Where ``name`` is, or None where there is no such file."""
        if self.members is not None:
            return self.members.get(name)
        path = self.root / name
        try:
            status = path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        return Place(path, status.st_size) if stat.S_ISREG(status.st_mode) else None

    def where(self, name: str) -> str:
        """What messages call ``name``, whether it is there or not."""
        return printable(f"{self.root}/{name}" if self.members is None else f"{self.root}: {name}")


def open_tar(path: Path, folder: str) -> Tree:
    """The files that the tar file ``path`` holds below ``folder``, at whatever depth that lies.

    Raises:
        DataError: it is compressed, damaged or cut off.
    """
    members: dict[str, Place] = {}
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                name = posixpath.normpath(member.name)
                below = f"/{name}".partition(f"/{folder}/")[2]
                if below and member.isreg() and not member.issparse():
                    members[below] = Place(path, member.size, name, member.offset_data)
    except tarfile.TarError as error:
        raise DataError(f"{path} is no plain tar file, or damaged ({error}): fetch it again, or unpack it") from None
    return Tree(path, members)
