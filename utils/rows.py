"""The lines of metrics.jsonl."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

PLACES = {"train": "step", "val": "epoch"}  # by kind, where in the run a row belongs


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
