"""From image files to batches on the device."""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dataset.config import DataConfig
    from dataset.loader import EvalLoader, TrainLoader, open_split
    from dataset.store.record import Record
    from dataset.store.samples import Samples

__all__ = ["DataConfig", "EvalLoader", "Record", "Samples", "TrainLoader", "open_split"]

_HOMES = {"DataConfig": "config", "Record": "store.record", "Samples": "store.samples"}


def __getattr__(name: str) -> object:
    """The names above, imported late: with the loaders comes torch, which decoding processes do without."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"dataset.{_HOMES.get(name, 'loader')}"), name)


def _give_numba_a_folder() -> None:
    """Numba keeps compiled loops beside their source or in the user's cache, and ends the program where it can do
    neither. Then they are compiled anew, into a folder that goes with this process."""
    of_user = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")  # noqa: PTH111 (Path's raises without a home)
    folders = (os.environ.get("NUMBA_CACHE_DIR", ""), Path(__file__).parent / "__pycache__", Path(of_user, "numba"))
    if any(_can_be_written(Path(folder)) for folder in folders):
        return
    try:
        folder = tempfile.mkdtemp(prefix="limbeck-numba-")
    except OSError:
        print("UsageError: no folder can be written to: set NUMBA_CACHE_DIR to one that can", file=sys.stderr)
        sys.exit(2)
    os.environ["NUMBA_CACHE_DIR"] = folder  # for the processes that this one starts, too
    atexit.register(shutil.rmtree, folder, ignore_errors=True)


def _can_be_written(folder: Path) -> bool:
    if not folder.is_absolute():
        return False
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


_give_numba_a_folder()
