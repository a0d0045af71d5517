"""The logs of a run: metrics.jsonl, TensorBoard, Weights & Biases. None of them ends it."""

from __future__ import annotations

import json
import shutil
import sys
import threading
import time
from collections.abc import Callable
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from utils.errors import UsageError
from utils.files import write_atomically
from utils.rows import PLACES, read_rows

Result = TypeVar("Result")


class Extra:
    """Something that a run can do without: after its first failure, which is printed in one line, it is off."""

    def __init__(self, name: str) -> None:
        self._name, self._works = name, True

    def do(self, work: Callable[[], Result]) -> Result | None:
        """What ``work`` gives; None where it fails or something failed before."""
        if not self._works:
            return None
        try:
            return work()
        except Exception as error:
            self._works = False
            first = f"{type(error).__name__}: {error}".partition("\n")[0]
            print(f"{self._name} is off, the run continues without it: {first}", file=sys.stderr)
            return None


class Logs:
    """Logging after ``epoch`` whole epochs and ``step`` steps; what a killed run logged beyond is dropped.

    Args:
        path: the run folder.
        epoch: from which the run resumes.
        step: likewise.
        config: for Weights & Biases.
        wandb_project: there; None for none.

    Raises:
        UsageError: Weights & Biases is asked for and not installed.
    """

    def __init__(self, path: Path, epoch: int, step: int, config: dict[str, Any], wandb_project: str | None) -> None:
        self._metrics, self._pending, self._failing = path / "metrics.jsonl", b"", False
        rows = self._cut({"train": step, "val": epoch})
        self._start = time.monotonic() - (rows[-1].get("seconds", 0.0) if rows else 0.0)
        self._board, self._wandb = Extra("TensorBoard"), Extra("Weights & Biases")
        self._writer = self._board.do(lambda: _tensorboard(path / "tensorboard", step + 1))
        self._project = _wandb(wandb_project, path, config, self._wandb) if wandb_project else None

    def log(self, kind: str, values: dict[str, float], phase: str = "") -> None:
        """Append a line to metrics.jsonl, and the same values to TensorBoard and Weights & Biases.

        Args:
            kind: train or val.
            values: by name; with the step.
            phase: of a run that has several, its name.
        """
        seconds, now = round(time.monotonic() - self._start, 3), datetime.now(timezone.utc)
        row = {"kind": kind, **({"phase": phase} if phase else {}), **values}
        row |= {"seconds": seconds, "time": now.isoformat(timespec="seconds")}
        self._append(json.dumps(row))
        step = int(values["step"])
        named = {f"{kind}/{name}": value for name, value in values.items() if name != "step"}
        if (writer := self._writer) is not None:
            for name, value in named.items():
                self._board.do(partial(writer.add_scalar, name, value, step))
        if (project := self._project) is not None:
            self._wandb.do(partial(project.log, named, step=step))

    def close(self) -> None:
        """Flush and end."""
        if self._writer is not None:
            self._board.do(self._writer.close)
        if self._project is not None:
            self._wandb.do(self._project.finish)
        if self._pending:
            lines = self._pending.decode().rstrip()
            print(f"{self._metrics} still cannot be written; its last lines are:\n{lines}", file=sys.stderr)

    def _append(self, line: str) -> None:
        """Write ``line`` and those that could not be written before; whole lines or nothing."""
        self._pending += f"{line}\n".encode()
        try:
            with self._metrics.open("ab", buffering=0) as file:
                start = file.tell()
                if file.write(self._pending) < len(self._pending):
                    file.truncate(start)
                    raise OSError("no space for a line")
        except OSError as error:
            if not self._failing:
                print(f"{self._metrics} cannot be written, its lines are tried again later: {error}", file=sys.stderr)
            self._failing = True
            return
        self._pending, self._failing = b"", False

    def _cut(self, limits: dict[str, int]) -> list[dict[str, Any]]:
        """The rows that are left without those beyond the limit of their kind and what cannot be read."""
        if not self._metrics.exists():
            return []
        rows, remark = read_rows(self._metrics)
        if remark:
            aside = self._metrics.with_suffix(".damaged.jsonl")
            shutil.copyfile(self._metrics, aside)
            print(f"{self._metrics}: {remark}; {aside} has them", file=sys.stderr)
        kept = [row for row in rows if row[PLACES[row["kind"]]] <= limits[row["kind"]]]
        write_atomically(self._metrics, "".join(f"{json.dumps(row)}\n" for row in kept).encode())
        return kept


def _tensorboard(folder: Path, purge_step: int) -> Any:
    from torch.utils.tensorboard import SummaryWriter

    others = threading.excepthook

    def hook(failure: threading.ExceptHookArgs) -> None:
        if not type(failure.thread).__module__.startswith("tensorboard."):  # whose next call raises the error again
            others(failure)

    threading.excepthook = hook
    return SummaryWriter(str(folder), purge_step=purge_step)


def _wandb(project: str, path: Path, config: dict[str, Any], logger: Extra) -> Any:
    try:
        import wandb
    except ImportError:
        raise UsageError("train_params.wandb_project needs wandb: pip install wandb") from None
    name = path.name
    return logger.do(
        lambda: wandb.init(project=project, name=name, id=name, resume="allow", dir=str(path), config=config)
    )
