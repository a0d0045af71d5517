"""Saving and restoring a run: one file, whole or absent, checked when it is read."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models.weights import packed
from utils.errors import DataError
from utils.files import write_atomically


def save(path: Path, state: dict[str, Any]) -> None:
    """Write ``state`` to ``path``; a kill or a full disk leaves what was there before.

    Raises:
        DataError, OSError: the disk is full, or nothing can be written.
    """
    try:
        write_atomically(path, lambda file: torch.save(state, file))
    except DataError:
        raise
    except RuntimeError as error:  # torch's zip writer raises one on top of the system's
        if isinstance(error.__context__, OSError):
            raise error.__context__ from None
        raise


def load(path: Path) -> dict[str, Any]:
    """The state at ``path``, on the CPU.

    Raises:
        DataError: the file is truncated, damaged or not a checkpoint.
    """
    try:
        with zipfile.ZipFile(path) as archive:  # torch.load itself does not compare the CRCs
            damaged = archive.testzip()
        if damaged is None:
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # of the zip, of its compression, of the pickle in it
        damaged = str(error).partition("\n")[0] or type(error).__name__
    raise DataError(f"{path} is damaged ({damaged})")


def export(path: Path, state: dict[str, Tensor]) -> None:
    """Write plain weights as safetensors, with a checksum that is compared when they are read."""
    write_atomically(path, packed(state))
