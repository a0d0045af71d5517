"""The packed split in a folder of this machine, of whichever kind it is."""

from __future__ import annotations

from pathlib import Path

from dataset.store.index import INDEX
from dataset.store.reader import ShardReader
from dataset.store.samples import Samples
from dataset.store.wsld import WsldReader, is_wsld_folder


def is_packed(folder: Path) -> bool:
    """Whether ``folder`` holds a packed split, finished or not."""
    return (folder / INDEX).exists() or any(folder.glob("*.lmdb")) or is_wsld_folder(folder)


def open_packed(folder: Path) -> Samples:
    """The samples in ``folder``: shards, or LMDB folders in WSLD's format.

    Raises:
        DataError: they are damaged, unfinished, or there are none.
    """
    if not (folder / INDEX).exists() and is_wsld_folder(folder):
        return WsldReader(folder)
    return ShardReader(folder)
