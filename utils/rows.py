"""The lines of metrics.jsonl."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

PLACES = {"train": "step", "val": "epoch"}  # by kind, where in the run a row belongs
TIME = ("seconds", "time")  # what stands behind the scores in a row

_PLACE = ("kind", "phase", "stage", "epoch", "step")  # what stands before them; older runs have stages


def read_rows(path: Path) -> tuple[list[dict[str, Any]], int]:
    """The rows in ``path`` of kind train, with a step, or val, with an epoch, and how many lines are something else.

    The end of a file without a line break is no line: a process was killed, or is at it.
    """
    rows, unread = [], 0
    for line in path.read_bytes().split(b"\n")[:-1]:
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if isinstance(row, dict) and isinstance(row.get(PLACES.get(str(row.get("kind")))), int | float):
            rows.append(row)
        else:
            unread += 1
    return rows, unread


def of_kind(rows: Sequence[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    """The rows of training, `train`, or of validation, `val`."""
    return [row for row in rows if row["kind"] == kind]


def primary(val: Sequence[dict[str, Any]]) -> str | None:
    """The score by which the run's best student is chosen: a task gives it first. None before the first epoch's end."""
    return next((name for name in val[0] if name not in _PLACE + TIME), None) if val else None


def highest(row: dict[str, Any]) -> float:
    """The primary score of the student or of the average of its weights that is best, of a row of validation."""
    name = primary([row])
    return max(row[kind] for kind in (name, f"ema_{name}", f"average_{name}") if kind in row)


def best_row(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The row of the epoch with the best student, which is of the last phase; empty before the first epoch's end."""
    val = of_kind(rows, "val")
    last = (row for row in val if row.get("phase") == val[-1].get("phase"))
    return max(last, key=lambda row: -math.inf if math.isnan(highest(row)) else highest(row), default={})
