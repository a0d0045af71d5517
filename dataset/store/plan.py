"""Which images go into which shard, written down by the first run on a folder so that all others do the same."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from utils.errors import DataError, UsageError
from utils.files import lock, write_atomically

PLAN = "plan.json"


def deal(sizes: list[int], most: int) -> list[int]:
    """Where each shard of at most ``most`` bytes ends."""
    ends: list[int] = []
    total = 0
    for position, size in enumerate(sizes):
        if total and total + size > most:
            ends.append(position)
            total = 0
        total += size
    return [*ends, len(sizes)]


def agreed_ends(folder: Path, settings: dict[str, object], ends: list[int]) -> list[int]:
    """The ends of the shards that the first run on ``folder`` wrote down, for images mended since have other sizes.

    Args:
        folder: of the split.
        settings: those that decide what is in a shard.
        ends: of this run, taken if it is the first.

    Raises:
        UsageError: the folder was begun with other ``settings``.
        DataError: what was written down is damaged.
    """
    path = folder / PLAN
    with lock(folder / ".plan.lock", wait=True):  # parts that start at the same time
        before: dict[str, Any] = {**settings, "ends": ends}
        if path.exists():
            before = read_json(path, before.keys())
        if changed := ", ".join(key for key in settings if before.get(key) != settings[key]):
            raise UsageError(f"{folder} was begun with another {changed}: repeat that command, or delete the folder")
        if before["ends"] != sorted(set(before["ends"])) or before["ends"][-1:] != ends[-1:]:
            raise DataError(f"{path} is damaged: delete it and run the same command again")
        write_atomically(path, json.dumps(before).encode())
    return before["ends"]


def read_json(path: Path, keys: Collection[str], more: Collection[str] = ()) -> dict[str, Any]:
    """An object with these ``keys``, perhaps some ``more``, and no others.

    Raises:
        DataError: it is not.
    """
    try:
        values = json.loads(path.read_bytes())
    except ValueError as error:
        raise DataError(f"{path} is damaged ({error}): delete it and run the same command again") from None
    if not isinstance(values, dict) or not set(keys) <= values.keys() <= {*keys, *more}:
        raise DataError(f"{path} is damaged: delete it and run the same command again")
    return values
