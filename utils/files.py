"""Writing files so that a kill or a full disk never leaves half of one."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from utils.errors import DataError, UsageError

_SAID = "LIMBECK_SAID_NO_LOCKS"  # in the environment, which decoding and packing processes inherit


def write_atomically(path: Path, content: bytes | Callable[[BinaryIO], object]) -> None:
    """Write bytes, or what ``content(file)`` writes, to a temporary name, sync it and rename it to ``path``.

    Raises:
        DataError: the disk is full or cannot be written; what stood at ``path`` before is untouched.
    """
    temporary = _temporary(path)
    try:
        with temporary.open("wb") as file:
            file.write(content) if isinstance(content, bytes) else content(file)
            file.flush()
            _sync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    except (OSError, RuntimeError) as error:
        with suppress(OSError):
            temporary.unlink()
        if disk_is_full(error):
            raise DataError(f"{path}: the disk is full; free some space and run the same command again") from error
        if isinstance(error, OSError):
            raise DataError(f"{path} cannot be written: {error.strerror or error}") from error
        raise


def make_folder(path: Path, option: str) -> None:
    """Make ``path`` and the folders above it, where they are missing, and try to write there.

    Raises:
        UsageError: naming the ``option`` that asks for it: a file stands there, or no file can be made in it.
        DataError: the disk is full.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        if disk_is_full(error):
            raise DataError(f"{option}: {path}: the disk is full; free some space") from None
        raise UsageError(f"{option}: the folder {path} cannot be written to: {error.strerror}") from None


def parsed(content: bytes | str) -> Any:
    """What JSON says.

    Raises:
        ValueError: it is none, or nested too deeply to be read.
    """
    try:
        return json.loads(content)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def check_output(path: Path, option: str = "--output") -> None:
    """See, before the work that makes it, that the file ``path`` can be written to its folder, where there is one.

    Raises:
        UsageError: naming the ``option`` that asks for it: a folder stands there, or no file can be made beside it.
    """
    if not path.parent.is_dir():
        return
    temporary = _temporary(path)
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        is_anothers = temporary.exists()
        temporary.touch()
        if not is_anothers:
            temporary.unlink()
    except OSError as error:
        raise UsageError(f"{option}: {path} cannot be written: {error.strerror}") from None


def expanded(path: str, setting: str) -> Path:
    """``path`` with its `~`.

    Raises:
        UsageError: naming the ``setting``: this user has no home folder.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise UsageError(f"{setting}: {path} leads to a home folder that is not known: write the path whole") from None


def _temporary(path: Path) -> Path:
    """What a file is called until it is whole."""
    return path.with_name(f"{path.name}.partial")


def sync_folder(folder: Path) -> None:
    """Make renames inside ``folder`` durable, where its file system can."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except PermissionError:  # it can be written to, and not be read
        return
    try:
        _sync(descriptor)
    finally:
        os.close(descriptor)


def _sync(descriptor: int) -> None:
    """Wait until the disk has it; file systems that cannot do so refuse, and each with an error of its own."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno in (errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            raise


def disk_is_full(error: BaseException) -> bool:
    """Whether ``error`` is how a full disk or quota shows itself (LMDB reports some as EIO)."""
    if isinstance(error.__context__, OSError):  # torch's zip writer raises a RuntimeError on top of it
        error = error.__context__
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    return any(text in str(error) for text in ("No space left", "Disk quota", "Input/output error"))


def sha256(path: Path) -> str:
    """The file's SHA-256 in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else _sha256(file)


def _sha256(file: BinaryIO) -> str:  # Python 3.10 has no hashlib.file_digest
    digest = hashlib.sha256()
    while chunk := file.read(1 << 20):
        digest.update(chunk)
    return digest.hexdigest()


@contextmanager
def lock(path: Path, message: str = "", *, shared: bool = False, wait: bool = False) -> Iterator[None]:
    """Hold ``path`` as an advisory lock that the kernel drops when the process ends, however it ends.

    Where the file system has no locks, it holds none, and prints so once for this process and those that it starts.

    Raises:
        UsageError: with ``message``, when another process holds it and ``wait`` is off; or the file cannot be opened.
    """
    try:
        opened = path.open("a")
    except OSError as error:
        raise UsageError(f"{path} cannot be opened: {error.strerror}") from None
    with opened as file:
        try:
            fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise UsageError(message) from None
        except OSError as error:
            if _SAID not in os.environ:
                os.environ[_SAID] = "1"
                why = f"no file locks on {path.parent} ({error.strerror})"
                print(f"warning: {why}: see to it that nothing else writes there", file=sys.stderr)
        yield
