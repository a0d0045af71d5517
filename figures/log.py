"""What a run folder says of its run: settings, scores, how far it is. Runs of older versions are read as today's."""

from __future__ import annotations

import fcntl
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from old_names import as_today
from utils.errors import DataError, UsageError
from utils.rows import read_rows

NOT_COMPARED = ("name", "train_params.output_path")
SEED = "train_params.seed"

_PLACE = ("kind", "phase", "stage", "epoch", "step")  # what stands before the scores in a row; older runs have stages
_TIME = ("seconds", "time")  # what stands behind them


def read_config(run: Path) -> dict[str, Any]:
    """The settings of a run, as this version writes them.

    Raises:
        UsageError: there is no config.json.
        DataError: it is damaged.
    """
    path = run / "config.json"
    try:
        config = as_today(json.loads(path.read_bytes()))
        if not all(isinstance(phase["terms"], dict) for phase in config["phases"].values()) or not config["phases"]:
            raise ValueError("it has no phases with terms")
        return config
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}; name run folders") from None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DataError(f"{path} is damaged ({error})") from None


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics.jsonl; how many cannot be read is printed.

    Raises:
        UsageError: there is none.
    """
    path = run / "metrics.jsonl"
    if not path.exists():
        raise UsageError(f"{path} is missing: {run} is not a run folder")
    rows, unread = read_rows(path)
    if unread:
        print(f"{path}: {unread} lines cannot be read and are left out", file=sys.stderr)
    return rows


def metrics_so_far(run: Path) -> list[dict[str, Any]]:
    """As `read_metrics`; none before the first line."""
    return read_metrics(run) if (run / "metrics.jsonl").exists() else []


def of_kind(rows: Sequence[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    """The rows of training, `train`, or of validation, `val`."""
    return [row for row in rows if row["kind"] == kind]


def primary(val: Sequence[dict[str, Any]]) -> str | None:
    """The score by which the run's best student is chosen: a task gives it first. None before the first epoch's end."""
    return next((name for name in val[0] if name not in _PLACE + _TIME), None) if val else None


def highest(row: dict[str, Any]) -> float:
    """The primary score of the student or of the average of its weights that is best, of a row of validation."""
    name = primary([row])
    return max(row[kind] for kind in (name, f"ema_{name}", f"average_{name}") if kind in row)


def best_row(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The row of the epoch with the best student, which is of the last phase; empty before the first epoch's end."""
    val = of_kind(rows, "val")
    last = (row for row in val if row.get("phase") == val[-1].get("phase"))
    return max(last, key=lambda row: -math.inf if math.isnan(highest(row)) else highest(row), default={})


def scores(row: dict[str, Any]) -> dict[str, float]:
    """What a row of validation measures, with its epoch and step."""
    return {name: value for name, value in row.items() if name not in ("kind", "phase", "stage", *_TIME)}


def epochs_done(rows: Sequence[dict[str, Any]]) -> int:
    """Whole epochs, each of which ends with a validation."""
    val = of_kind(rows, "val")
    return int(val[-1]["epoch"]) if val else 0


def epochs_of(config: dict[str, Any]) -> int:
    """Epochs of all phases."""
    return sum(phase["epochs"] for phase in config["phases"].values())


def is_written(run: Path) -> bool:
    """Whether a run that is going on holds the folder. False where the file system has no locks."""
    try:
        with (run / ".lock").open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def differing(configs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of each the settings that another has with another value, by their names on the command line."""
    every = [settings_of(config) for config in configs]
    values: dict[str, set[str]] = {}
    for one in every:
        for key, value in one.items():
            values.setdefault(key, set()).add(json.dumps(value))
    return [{key: one[key] for key in one if len(values[key]) > 1 and key not in NOT_COMPARED} for one in every]


def settings_of(config: dict[str, Any]) -> dict[str, Any]:
    """The settings of a run by their names on the command line, where those of the last phase have none before them."""
    left_out = f"phases.{[*config['phases']][-1]}."
    return {key.removeprefix(left_out): value for key, value in _flat(config).items()}


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """The values of nested dictionaries by dotted keys."""
    if not isinstance(value, dict):
        return {prefix: value}
    inner = [_flat(item, f"{prefix}.{key}" if prefix else key) for key, item in value.items()]
    return {key: item for one in inner for key, item in one.items()}
