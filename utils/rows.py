"""The lines of metrics.jsonl."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from utils.files import parsed
from utils.text import counted, printable, shortened

PLACES = {"train": "step", "val": "epoch"}  # by kind, where in the run a row belongs
TIME = ("seconds", "time")  # what stands behind the scores in a row

_PLACE = ("kind", "phase", "stage", "epoch", "step")  # what stands before them; older runs have stages
_TEXTS = ("kind", "phase", "stage", "time")
_COUNTED = ("epoch", "step", "seconds")
_MOST = 2**63


def read_rows(path: Path) -> tuple[list[dict[str, Any]], str]:
    """The rows in ``path``, and a remark on lines that are left out for not being rows; empty where there are none.

    A row is of kind train, with a step, or val, with an epoch and a score; it has a phase and a time, where it has
    them, and numbers. The end of a file without a line break is no line: a process was killed, or is at it.
    """
    rows, wrong = [], list[str]()
    for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], start=1):
        try:
            rows.append(_row(line))
        except ValueError as error:
            wrong.append(f"line {number}: {error}")
    left_out = f"{counted(len(wrong), 'line')} cannot be read and {'is' if len(wrong) == 1 else 'are'} left out"
    return rows, f"{left_out} ({wrong[0]}{', ...' if len(wrong) > 1 else ''})" if wrong else ""


def _row(line: bytes) -> dict[str, Any]:
    """The row that a line is.

    Raises:
        ValueError: what is wrong with it.
    """
    try:
        row = parsed(line)
    except ValueError:
        raise ValueError("it is no JSON") from None
    if not isinstance(row, dict) or row.get("kind") not in (*PLACES,):
        raise ValueError("its kind is not train or val")
    if PLACES[row["kind"]] not in row:
        raise ValueError(f"it has no {PLACES[row['kind']]}")
    if row["kind"] == "val" and primary([row]) is None:
        raise ValueError("it has no score")
    for name, value in row.items():
        expected = _lacks(name, value)
        if expected:
            raise ValueError(f"{printable(name)} is {shortened(repr(value))}, no {expected}")
    return row


def _lacks(name: str, value: Any) -> str:
    """What the value of a field should be and is not; empty where it is well."""
    if name == "time":
        return "" if _is_time(value) else "time with its zone"
    if name in _TEXTS:
        return "" if isinstance(value, str) else "text"
    if not isinstance(value, float) and not (isinstance(value, int) and abs(value) < _MOST):
        return "number"
    return "" if 0 <= value < _MOST or name not in _COUNTED else "finite number from 0"


def _is_time(value: Any) -> bool:
    try:
        then = datetime.fromisoformat(value)
        return then.tzinfo is not None and bool(then.astimezone())
    except (ValueError, TypeError, OverflowError):
        return False


def of_kind(rows: Sequence[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    """The rows of training, `train`, or of validation, `val`."""
    return [row for row in rows if row["kind"] == kind]


def primary(val: Sequence[Mapping[str, Any]]) -> str | None:
    """The score by which the run's best student is chosen: a task gives it first. None before the first epoch's end."""
    return next((name for name in val[0] if name not in _PLACE + TIME), None) if val else None


def highest(row: dict[str, Any]) -> float:
    """The primary score of the student or of the average of its weights that is best, of a row of validation."""
    name = primary([row])
    return max(row[kind] for kind in (name, f"ema_{name}", f"average_{name}") if kind in row)


def best_row(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The row of the epoch with the best student, which is of the last phase; empty before the first epoch's end.

    Where no score is a number, as without labels, it is the last row.
    """
    val = of_kind(rows, "val")
    known = [row for row in val if row.get("phase") == val[-1].get("phase") and not math.isnan(highest(row))]
    return max(known, key=highest, default=val[-1] if val else {})
