"""From image files to batches on the device."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dataset.loader import DataConfig, EvalLoader, TrainLoader, open_split

__all__ = ["DataConfig", "EvalLoader", "TrainLoader", "open_split"]


def __getattr__(name: str) -> object:
    """The names above, imported late: with them comes torch, which decoding processes do without."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from dataset import loader

    return getattr(loader, name)
