"""What a run folder says of its run: settings, scores, how far it is. Runs of older versions are read as today's."""

from __future__ import annotations

import fcntl
import json
import math
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from old_names import as_today
from utils.errors import DataError, UsageError
from utils.files import parsed
from utils.rows import TIME, best_row, highest, of_kind, primary, read_rows
from utils.text import shortened

__all__ = [
    "as_json",
    "best_row",
    "differing",
    "epochs_done",
    "epochs_of",
    "highest",
    "is_compared",
    "is_written",
    "metrics_so_far",
    "of_kind",
    "primary",
    "read_config",
    "read_metrics",
    "scores",
    "settings_of",
]

SEED = "train_params.seed"

# What is read of a config, with the types of its values; * for any name.
_SHAPE = {
    "data": {"batch_size": int},
    "student": {"name": str},
    "teachers": {"*": {"name": str}},
    "phases": {"*": {"epochs": int, "terms": {"*": {"objective": str, "weight": (int, float)}}}},
    "train_params": {"seed": int},
    "task_options": {"threshold": (int, float), "most_objects": int},
}
_MAY_LACK = (
    *("data", "student", "teachers", "train_params", "seed", "weight"),
    *("task_options", "threshold", "most_objects"),
)

# Settings that change nothing of what a run learns, nor of what it learns from and how it computes.
_NOT_COMPARED = re.compile(
    r"name|train_params\.(output_path|print_freq|checkpoint_steps|timeout_minutes|wandb_project)"
    r"|data\.(num_workers|worker_timeout|val_batch_size|cache_path|cache_gb)"
    r"|teachers\.[^.]+\.(store|on_damage|expect)"
)


def read_config(run: Path) -> dict[str, Any]:
    """The settings of a run, as this version writes them.

    Raises:
        UsageError: there is no config.json.
        DataError: it is damaged.
    """
    path = run / "config.json"
    try:
        config = as_today(parsed(path.read_bytes()))
        _check(config, _SHAPE)
        if not config["phases"]:
            raise ValueError("it has no phases")
        return config
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}; name run folders") from None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DataError(f"{path} is damaged ({error})") from None


def _check(value: Any, shape: Any, key: str = "") -> None:
    """Raises ValueError where a ``value`` is not of its ``shape``: a type, or the values of an object by name."""
    if isinstance(shape, dict) and isinstance(value, dict):
        if lacking := [name for name in shape if name not in ("*", *_MAY_LACK, *value)]:
            raise ValueError(f"it has no {key}{lacking[0]}")
        for name in value:
            if (inner := shape.get(name, shape.get("*"))) is not None:
                _check(value[name], inner, f"{key}{name}.")
    elif isinstance(shape, dict) or not isinstance(value, shape):
        raise ValueError(f"{key.rstrip('.')} is {shortened(repr(value))}, which it cannot be")


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics.jsonl; what cannot be read is printed.

    Raises:
        UsageError: there is none.
    """
    path = run / "metrics.jsonl"
    if not path.exists():
        raise UsageError(f"{path} is missing: {run} is not a run folder")
    rows, remark = read_rows(path)
    if remark:
        print(f"{path}: {remark}", file=sys.stderr)
    return rows


def metrics_so_far(run: Path) -> list[dict[str, Any]]:
    """As `read_metrics`; none before the first line."""
    return read_metrics(run) if (run / "metrics.jsonl").exists() else []


def scores(row: dict[str, Any]) -> dict[str, float]:
    """What a row of validation measures, with its epoch and step."""
    return {name: value for name, value in row.items() if name not in ("kind", "phase", "stage", *TIME)}


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
    return [{key: one[key] for key in one if len(values[key]) > 1 and is_compared(key)} for one in every]


def is_compared(key: str) -> bool:
    """Whether runs that differ in a setting are told apart by it."""
    return _NOT_COMPARED.fullmatch(key) is None


def as_json(value: Any) -> str:
    """As JSON, which has no NaN and no infinity: null stands for these."""
    return json.dumps(_finite(value), indent=1)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


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
