"""Which images go into which shard, written down by the first run on a folder so that all others do the same."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from utils.errors import DataError, UsageError
from utils.files import lock, parsed, write_atomically

PLAN = "plan.json"
LIST = "list_sha256"  # the setting that stands for all keys and targets


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
            before = read_json(path, ("ends", LIST), None)
        check_settings(folder, {key: value for key, value in before.items() if key != "ends"}, settings)
        if before["ends"] != sorted(set(before["ends"])) or before["ends"][-1:] != ends[-1:]:
            raise DataError(f"{path} is damaged: delete it and run the same command again")
        write_atomically(path, json.dumps(before).encode())
    return before["ends"]


def check_settings(folder: Path, before: Mapping[str, object], now: Mapping[str, object]) -> None:
    """Compare the settings of a split with those that it was begun with.

    Raises:
        UsageError: they differ; with both.
    """
    changed = [key for key in {**now, **before} if before.get(key, ...) != now.get(key, ...)]
    if not changed:
        return
    given = [key for key in changed if key != LIST]
    then, today = (", ".join(f"{key}={one[key]}" for key in given if key in one) for one in (before, now))
    differ = f"{then} then, {today} now" if given else "keys or targets are others"
    raise UsageError(
        f"{folder} was begun with another {', '.join(changed)}: {differ}; repeat that command, or delete the folder"
    )


def read_json(path: Path, keys: Collection[str], more: Collection[str] | None = ()) -> dict[str, Any]:
    """An object with these ``keys``, perhaps some ``more``, and no others; with ``more`` None any others.

    Raises:
        DataError: it is not.
    """
    try:
        values = parsed(path.read_bytes())
    except ValueError as error:
        raise DataError(f"{path} is damaged ({error}): delete it and run the same command again") from None
    if not isinstance(values, dict) or not set(keys) <= values.keys() <= {*keys, *(values if more is None else more)}:
        raise DataError(f"{path} is damaged: delete it and run the same command again")
    return values
