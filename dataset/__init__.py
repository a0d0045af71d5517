"""From image files to batches on the device."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dataset.config import DataConfig
    from dataset.loader import EvalLoader, TrainLoader, open_split
    from dataset.store.record import Boxes, Record
    from dataset.store.samples import Samples

__all__ = ["Boxes", "DataConfig", "EvalLoader", "Record", "Samples", "TrainLoader", "open_split"]

_HOMES = {"Boxes": "store.record", "DataConfig": "config", "Record": "store.record", "Samples": "store.samples"}


def __getattr__(name: str) -> object:
    """The names above, imported late: with the loaders comes torch, which decoding processes do without."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"dataset.{_HOMES.get(name, 'loader')}"), name)
