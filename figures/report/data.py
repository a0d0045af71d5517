"""What run folders say by themselves: settings, logs, where they ran. No network is run for it."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from figures import curves, log
from training.facts import check_facts
from training.manifest import read_manifest
from utils.errors import DataError, UsageError
from utils.files import parsed
from utils.rows import read_rows
from utils.settings import show
from utils.text import printable, shortened

_NAMED_BY_USERS = {"teachers", "terms", "phases", "options", "task_options", "taps"}  # what is in these may be absent
_MANIFEST = ".manifest.json"
_LATELY = 20  # lines of the log by which the time left is estimated
_BRIEF = 90  # letters of a value


@dataclass(frozen=True)
class Run:
    """A run folder.

    Attributes:
        path: of the folder.
        config: its settings, as this version writes them.
        train: lines of its log about training steps.
        val: lines about validations.
        environment: command, versions, devices; empty where it does not say.
        facts: classes, images and digests of the data; likewise.
        table: rows of its per_class.csv, the means in the last one; empty without one.
        is_training: whether a process is at it.
        notes: what is missing or damaged, a line each; what is found out later is added.
    """

    path: Path
    config: dict[str, Any]
    train: list[dict[str, Any]]
    val: list[dict[str, Any]]
    environment: dict[str, Any]
    facts: dict[str, Any]
    table: list[dict[str, str]]
    is_training: bool
    notes: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Of the folder, as it can be printed."""
        return printable(self.path.resolve().name)

    @property
    def task(self) -> str:
        """single_label, multi_label, detection, features, or one of the user's own."""
        return str(self.config.get("task", "single_label"))

    @property
    def epochs(self) -> int:
        """That it has done whole."""
        return log.epochs_done(self.val)

    @property
    def of(self) -> int:
        """Epochs that it is to have."""
        return log.epochs_of(self.config)

    @property
    def primary(self) -> str | None:
        """The score by which its best student is chosen; None before the end of the first epoch."""
        return log.primary(self.val)

    @property
    def best(self) -> dict[str, Any]:
        """The line of the epoch with the best student, in the last phase; empty before the end of the first epoch."""
        return log.best_row(self.val)

    @property
    def score(self) -> float | None:
        """The highest primary score, of the student and its averages, percent."""
        return log.highest(self.best) if self.best and math.isfinite(log.highest(self.best)) else None

    @cached_property
    def steps_an_epoch(self) -> float:
        """Training steps of an epoch; 1 where nothing tells."""
        if rows := [row for row in self.val if row.get("step") and row["epoch"]]:
            return rows[-1]["step"] / rows[-1]["epoch"]
        images = self.facts.get("data", {}).get("train", {}).get("images", 0)
        if steps := images // self.config["data"]["batch_size"]:
            return steps
        return max((row["step"] / row["epoch"] for row in self.train if row.get("epoch")), default=1.0)

    @property
    def seconds(self) -> float:
        """Between its start and the last line of its log, without the time in which it stood still."""
        return max((row.get("seconds", 0.0) for row in (*self.train, *self.val)), default=0.0)

    @property
    def seconds_left(self) -> float | None:
        """To its end, at the pace of late; None where the log does not tell."""
        rows = [row for row in (*self.train, *self.val) if "seconds" in row and "step" in row]
        rows.sort(key=lambda row: row["step"])
        if not rows:
            return None
        last, before = rows[-1], rows[-_LATELY] if len(rows) >= _LATELY else {"seconds": 0.0, "step": 0}
        steps = last["step"] - before["step"]
        pace = (last["seconds"] - before["seconds"]) / steps if steps else 0.0
        return max(0.0, pace * (self.of * self.steps_an_epoch - last["step"]))

    @property
    def last_line(self) -> datetime | None:
        """When it was written."""
        times = [row["time"] for row in (*self.train[-1:], *self.val[-1:]) if isinstance(row.get("time"), str)]
        return max((datetime.fromisoformat(one) for one in times), default=None)

    @property
    def terms(self) -> dict[str, dict[str, Any]]:
        """Of all phases, by name."""
        return {name: term for phase in self.config["phases"].values() for name, term in phase["terms"].items()}


class Group(NamedTuple):
    """Runs that differ in nothing but their seeds.

    Attributes:
        name: what their names have in common.
        runs: one at least.
        number: from 0, by which it has its colour.
    """

    name: str
    runs: list[Run]
    number: int

    @property
    def first(self) -> Run:
        """The run that stands for the others where one is shown."""
        return self.runs[0]


def folders_of(paths: Sequence[Path]) -> list[Path]:
    """The run folders that a command line names; in place of a manifest, the runs of its procedure.

    Raises:
        UsageError: one is neither.
        DataError: a manifest is damaged.
    """
    found: list[Path] = []
    for path in paths:
        if path.name.endswith(_MANIFEST) and path.is_file():
            folders = [Path(one["folder"]) for one in read_manifest(path).values()]
            found += [one for one in folders if (one / "config.json").exists()]
        elif not (path / "config.json").is_file():
            raise UsageError(f"{path} has no config.json: name run folders, or the {_MANIFEST} beside them")
        else:
            found.append(path)
    if not found:
        raise UsageError(f"{paths[0]}: none of its runs has begun")
    return list({one.resolve(): one for one in found}.values())


def read_run(path: Path) -> Run:
    """The run in the folder ``path``; what is missing or damaged beside its settings is in its notes.

    Raises:
        DataError: the settings are damaged.
    """
    config = log.read_config(path)
    if lacking := [name for name in ("data", "student") if name not in config]:
        raise DataError(f"{path / 'config.json'} is damaged (it has no {lacking[0]})")
    notes: list[str] = []
    environment = _read_object(
        path / "environment.json", "versions, devices and the command", notes, _check_environment
    )
    facts = _read_object(path / "facts.json", "classes and digests of the data", notes, check_facts)
    rows, remark = read_rows(path / "metrics.jsonl") if (path / "metrics.jsonl").exists() else ([], "")
    if remark:
        notes.append(f"metrics.jsonl: {remark}")
    train, val = (log.of_kind(rows, kind) for kind in ("train", "val"))
    if not rows:
        notes.append("metrics.jsonl has no line yet: there are no curves")
    elif not val:
        notes.append("no epoch has ended yet: there are no scores")
    return Run(path, config, train, val, environment, facts, _table(path), log.is_written(path), notes)


def grouped(runs: Sequence[Run]) -> list[Group]:
    """Runs that differ in nothing but their seeds together, in the order of the first of each."""
    of_path = {run.path: run for run in runs}
    found = enumerate(curves.groups([*of_path]))
    return [Group(printable(one.name), [of_path[path] for path in one.runs], number) for number, one in found]


def differing(groups: Sequence[Group]) -> dict[str, list[str]]:
    """Settings in which not all groups are alike: the value in each, in short; empty where it has none.

    What the version of one of them did not have yet is left out.
    """
    rows = _differing([_as_on_the_command_line(group.first.config) for group in groups], "")
    return {
        key: [brief(one) for one in values]
        for key, values in rows
        if key != log.SEED
        and log.is_compared(key)
        and (_ABSENT not in values or key == "phases" or _parent(key) in _NAMED_BY_USERS)
    }


def brief(value: Any) -> str:
    """A setting, or a whole term or network, on a short line."""
    if value is _ABSENT:
        return ""
    if isinstance(value, dict):
        if "objective" in value:
            options = ", ".join(f"{key}={show(one)}" for key, one in value.get("options", {}).items())
            text = f"{value['objective']} x {value.get('weight', 1.0):g}{f' ({options})' if options else ''}"
        elif "name" in value and "weights" in value:
            text = f"{value['name']}, weights {value['weights']}"
        else:
            text = ", ".join(f"{key}={show(one)}" for key, one in value.items()) or "none"
    else:
        text = show(value) if value not in ("", [], ()) else "none"
    return shortened(text, _BRIEF)


def ago(then: datetime) -> str:
    """How long ``then`` is past, in words."""
    return f"{duration((datetime.now(timezone.utc) - then.astimezone(timezone.utc)).total_seconds())} ago"


def duration(seconds: float) -> str:
    """Seconds in words, to two units."""
    whole, parts = max(0, round(seconds)), []
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min"), (1, "s")):
        count, whole = divmod(whole, size)
        parts += [f"{count} {unit}"] if count else []
    return " ".join(parts[:2]) or "0 s"


_ABSENT = object()


def _parent(key: str) -> str:
    return key.rpartition(".")[0].rpartition(".")[2]


def _differing(values: Sequence[Any], key: str) -> Iterator[tuple[str, list[Any]]]:
    """Of nested dictionaries, the deepest values that not all have alike."""
    if all(isinstance(one, dict) for one in values):
        for name in dict.fromkeys(name for one in values for name in one):
            yield from _differing([one.get(name, _ABSENT) for one in values], f"{key}.{name}" if key else str(name))
    elif any(one != values[0] for one in values):
        yield key, list(values)


def _as_on_the_command_line(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings, those of the last phase without its name before them."""
    *before, last = config["phases"].items()
    others = {key: value for key, value in config.items() if key != "phases"}
    return {**others, **last[1], **({"phases": dict(before)} if before else {})}


def _read_object(path: Path, what: str, notes: list[str], check: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    try:
        values = dict(parsed(path.read_bytes()))
        check(values)
        return values
    except FileNotFoundError:
        notes.append(f"{path.name} is missing: {what} are not known")
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        notes.append(f"{path.name} is damaged ({error}): {what} are not known")
    return {}


def _check_environment(values: dict[str, Any]) -> None:
    """Raises TypeError or AttributeError where it is not as a run writes it."""
    values.get("versions", {}).items()
    for name in ("command", "devices", "hosts"):
        list(values.get(name, []))


def _table(path: Path) -> list[dict[str, str]]:
    if not (path / "per_class.csv").exists():
        return []
    rows = list(csv.DictReader((path / "per_class.csv").read_text("utf-8", "replace").splitlines()))
    return rows if rows and "class" in rows[0] else []
