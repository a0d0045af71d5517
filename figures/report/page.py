"""The page: what its template is given. Everything is escaped by the template, in one place."""

from __future__ import annotations

import base64
import hashlib
import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from figures import log
from figures.curves import PROCESSES, TRAINER
from figures.regularization import Effect
from figures.report.charts import COLORS, Chart, Line, aligned, banded, chart
from figures.report.data import Group, Run, ago, brief, differing, duration
from figures.report.networks import sections
from figures.report.seen import Bench
from figures.runs import DIVERGED
from utils.text import counted, printable

_PARTS = {"trainer": TRAINER, "decoding processes": PROCESSES}
_NOT_SCORES = {"kind", "phase", "stage", "epoch", "step", "seconds", "time", "images"}
_NOT_TERMS = _NOT_SCORES | {"lr", "loss", "images_per_second", "data_wait"}
_AVERAGES = ("ema_", "average_")
_TIMED = 6  # groups whose time is drawn

Value = Callable[[Mapping[str, Any]], Any]


def page(
    groups: Sequence[Group], benches: Sequence[Bench], effects: Mapping[int, Effect], command: Sequence[str]
) -> str:
    """The page about runs, as HTML.

    Args:
        groups: of all runs.
        benches: what their networks give.
        effects: by a group's number, what WSLD does with its training images.
        command: that makes the page.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    runs = [run for group in groups for run in group.runs]
    return environment.get_template("page.html").render(
        title=groups[0].name if len(groups) == 1 else counted(len(runs), "run"),
        made=datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z"),
        command=shlex.join(command),
        groups=[_summary(group, groups) for group in groups],
        runs=[_run(run) for run in runs],
        notes=_notes(runs),
        differing=differing(groups),
        settings=[
            (group.name, {key: brief(value) for key, value in log.settings_of(group.first.config).items()})
            for group in groups
        ],
        curves=_curves(groups),
        more=_more_scores(groups),
        time=[one for group in groups[:_TIMED] for one in _time(group, named=len(groups) > 1)],
        places=[_place(run) for run in runs],
        color=lambda number: number % COLORS,
        digest=_digest,
        **sections(groups, benches, effects),
    )


def _digest(style: str) -> str:
    """SHA-256 in base64, by which the page's policy knows its style."""
    return base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()


def _summary(group: Group, groups: Sequence[Group]) -> dict[str, Any]:
    scores = [run.score for run in group.runs if run.score is not None]
    every = [
        run.score for one in groups for run in one.runs if run.score is not None and run.primary == group.first.primary
    ]
    speeds = [row["images_per_second"] for run in group.runs for row in run.train if "images_per_second" in row]
    first = group.first
    return {
        "group": group,
        "score": mean(scores) if scores else None,
        "spread": stdev(scores) if len(scores) > 1 else None,
        "scores": scores,
        "range": (min(every), max(every)) if every else (0.0, 1.0),
        "primary": first.primary or "score",
        "method": " + ".join(
            f"{'' if term.get('weight', 1.0) == 1 else format(term['weight'], 'g') + ' '}{printable(name)}"
            for name, term in first.terms.items()
        ),
        "student": printable(first.config["student"]["name"]),
        "teachers": ", ".join(printable(one["name"]) for one in first.config.get("teachers", {}).values()) or "none",
        "speed": mean(speeds) if speeds else None,
        "seconds": duration(mean(run.seconds for run in group.runs)),
        "epochs": _range([run.epochs for run in group.runs], first.of),
        "task": first.task.replace("_", " "),
        "data": printable(str(first.config["data"].get("data_path", ""))),
        "seeds": ", ".join(str(run.config.get("train_params", {}).get("seed", "?")) for run in group.runs),
    }


def _range(epochs: Sequence[int], of: int) -> str:
    done = str(epochs[0]) if len({*epochs}) == 1 else f"{min(epochs)} to {max(epochs)}"
    return f"{done} of {of}"


def _run(run: Run) -> dict[str, Any]:
    row = run.best
    scores = {name: value for name, value in row.items() if name not in _NOT_SCORES and isinstance(value, int | float)}
    return {
        "run": run,
        "seed": run.config.get("train_params", {}).get("seed", "?"),
        "score": run.score,
        "epoch": row.get("epoch"),
        "scores": scores,
        "state": _state(run),
        "time": duration(run.seconds),
        "date": run.last_line.astimezone().strftime("%Y-%m-%d %H:%M") if run.last_line else "",
    }


def _state(run: Run) -> tuple[str, str]:
    """A word for the style, and how far the run is."""
    last = f", last line {ago(run.last_line)}" if run.last_line else ""
    if run.epochs >= run.of:
        return "ended", f"ended after {counted(run.of, 'epoch')}"
    if run.is_training:
        left = f", about {duration(run.seconds_left)} left" if run.seconds_left is not None else ""
        return "training", f"training, {run.epochs} of {counted(run.of, 'epoch')} done{left}{last}"
    if (run.path / DIVERGED).exists():
        return "stopped", f"diverged after {counted(run.epochs, 'epoch')}{last}"
    return "stopped", f"not at its end: {run.epochs} of {counted(run.of, 'epoch')} done{last}"


def _notes(runs: Sequence[Run]) -> list[tuple[str, list[str]]]:
    """What is missing, with the runs that miss it."""
    of_note: dict[str, list[str]] = {}
    for run in runs:
        for note in run.notes:
            of_note.setdefault(printable(note), []).append(run.name)
    return list(of_note.items())


def _curves(groups: Sequence[Group]) -> list[Chart]:
    """Scores and losses of validation, the loss and its terms, learning rate and speed."""
    charts = []
    for name in dict.fromkeys(run.primary for group in groups for run in group.runs if run.primary):
        some = [group for group in groups if group.first.primary == name]
        charts += _val_chart(some, name, f"validation {name}", "%", averages=True)
        charts += _val_chart(some, "loss", "validation loss", steep=True)
    charts += _losses(groups)
    charts += _terms(groups)
    charts += _train_chart(groups, lambda row: row.get("lr"), "learning rate")
    charts += _train_chart(groups, lambda row: row.get("images_per_second"), "images a second", from_zero=True)
    charts += _train_chart(groups, lambda row: _percent(row.get("data_wait")), "waiting for data", "%", from_zero=True)
    return charts


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share


def _losses(groups: Sequence[Group]) -> list[Chart]:
    """One chart for runs that add up the same terms, for losses of others cannot be compared."""
    alike: dict[str, list[Group]] = {}
    for group in groups:
        alike.setdefault(str(group.first.terms), []).append(group)
    return [
        one
        for some in alike.values()
        for one in _train_chart(some, lambda row: row.get("loss"), "training loss", steep=True, legend=len(alike) > 1)
    ]


def _terms(groups: Sequence[Group]) -> list[Chart]:
    """A chart of each term, and of each running score of training."""
    alike: dict[tuple[str, str], list[Group]] = {}
    for group in groups:
        for name, term in group.first.terms.items():
            same = str([term.get("objective"), term.get("options")])
            alike.setdefault((name, same), []).append(group)
    charts = []
    for (name, _), some in alike.items():
        title = f"{printable(name)}, before its weight"
        charts += _train_chart(some, lambda row, name=name: row.get(name), title, steep=True)  # type: ignore[misc]
    names = {key for group in groups for run in group.runs for row in run.train for key in row}
    known = _NOT_TERMS | {name for name, _ in alike}
    for name in sorted(key for key in names - known if not key.startswith("time/")):
        charts += _train_chart(groups, lambda row, name=name: row.get(name), f"training {name}", "%")  # type: ignore[misc]
    return charts


def _more_scores(groups: Sequence[Group]) -> list[Chart]:
    """Validation scores beside the primary one."""
    runs = [run for group in groups for run in group.runs]
    names = dict.fromkeys(key for run in runs for row in run.val for key in row)
    known = _NOT_SCORES | {"loss"} | {run.primary for run in runs}
    return [
        one
        for name in names
        if name not in known and not name.startswith(_AVERAGES)
        for one in _val_chart(groups, name, f"validation {printable(name)}", "%")
    ]


def _val_chart(
    groups: Sequence[Group], name: str, title: str, unit: str = "", *, averages: bool = False, steep: bool = False
) -> list[Chart]:
    names = {name: ""}
    if averages:
        names |= {f"{prefix}{name}": f", {prefix.rstrip('_').replace('ema', 'EMA')}" for prefix in _AVERAGES}
    rows = [(group, one, more) for group in groups for one, more in names.items()]
    curves = [
        [[(row["epoch"], row[one]) for row in run.val if _is_number(row.get(one))] for run in group.runs]
        for group, one, _ in rows
    ]
    return _drawn(title, rows, curves, unit, steep=steep)


def _train_chart(
    groups: Sequence[Group],
    value: Value,
    title: str,
    unit: str = "",
    *,
    steep: bool = False,
    from_zero: bool = False,
    legend: bool = False,
) -> list[Chart]:
    rows = [(group, "", "") for group in groups]
    curves = [
        [
            [(row["step"] / run.steps_an_epoch, value(row)) for row in run.train if _is_number(value(row))]
            for run in group.runs
        ]
        for group in groups
    ]
    return _drawn(title, rows, curves, unit, steep=steep, from_zero=from_zero, legend=legend)


def _drawn(
    title: str,
    rows: Sequence[tuple[Group, str, str]],
    curves: Sequence[Sequence[Sequence[tuple[float, float]]]],
    unit: str,
    *,
    steep: bool = False,
    from_zero: bool = False,
    legend: bool = False,
) -> list[Chart]:
    """The chart, or none where no run has a value; a line is of the runs of its group that have some."""
    x, values = aligned([one for of_row in curves for one in of_row])
    if not len(x):
        return []
    left, lines = iter(values), []
    for (group, _, more), of_row in zip(rows, curves):
        known = [row for row in (next(left) for _ in of_row) if np.isfinite(row).any()]
        if known:
            lines.append(banded(f"{group.name}{more}", known, group.number % COLORS, dashed=bool(more)))
    looks = {"unit": unit, "may_be_steep": steep, "from_zero": from_zero, "legend": legend}
    return [chart(title, x, lines, x_name="epoch", **looks)]  # type: ignore[arg-type]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float)


def _time(group: Group, *, named: bool) -> list[Chart]:
    """Shares of time of the group's first run, of the trainer and of the decoding processes."""
    run, charts = group.first, []
    timed = [row for row in run.train if "time/data" in row]
    for title, parts in _PARTS.items():
        if title == "decoding processes" and not run.config["data"].get("num_workers"):
            continue
        curves = [
            [(row["step"] / run.steps_an_epoch, 100 * row.get(f"time/{part}", 0.0)) for row in timed] for part in parts
        ]
        x, values = aligned(curves)
        if len(x):
            lines = [
                Line(f"{part} {value.mean():.0f} %", value, number)
                for number, (part, value) in enumerate(zip(parts, values))
            ]
            title = f"{run.name}, {title}" if named else f"time of the {title}"
            charts.append(chart(title, x, lines, x_name="epoch", unit="%", kind="stack", legend=True))
    return charts


def _place(run: Run) -> dict[str, Any]:
    """Where and with what it ran."""
    known = run.environment
    command = known.get("command")
    devices = [str(one) for one in known.get("devices", [])]
    data = run.facts.get("data", {})
    return {
        "run": run,
        "command": shlex.join(["python", *map(str, command)]) if isinstance(command, list) else "not known",
        "rows": {
            "devices": ", ".join(f"{devices.count(one)} x {one}" for one in dict.fromkeys(devices)) or "not known",
            "ranks": known.get("ranks", "not known"),
            "hosts": ", ".join(map(str, known.get("hosts", []))) or "not known",
            "cores": known.get("cpus", "not known"),
            "revision": known.get("git") or "not known",
            "Python": known.get("python", "not known"),
            **{str(name): value or "absent" for name, value in known.get("versions", {}).items()},
            **{
                f"{split} split": f"{counted(one['images'], 'image')}, {counted(len(one['classes']), 'class')}, "
                f"SHA-256 {str(one['sha256'])[:12]}"
                for split, one in data.items()
            },
            "folder": printable(os.fspath(run.path.resolve())),
        },
    }
