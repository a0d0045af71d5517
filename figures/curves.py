"""Learning curves of one or more runs.

python -m figures.curves runs/x [runs/y ...] [--output curves.png]

Of one run: training loss, primary validation score, and where the time went. Of several, whose terms may be of
different methods, the loss of the validation takes the place of the training loss; of detectors, which have none, the
sum of the terms that all have. Runs that differ in the seed alone are one line, their mean, in a band of one standard
deviation.
"""

from __future__ import annotations

import argparse
import itertools
import json
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from figures import log
from figures.log import primary, read_metrics
from utils.console import exit_with_its_code, png
from utils.errors import ExpectedError
from utils.files import check_output
from utils.plots import plt, save

__all__ = ["PROCESSES", "TRAINER", "draw", "groups", "primary", "read_metrics"]

# Shares of time in a row of training, as `training.spent` has them; older runs have none.
TRAINER = ("student", "teacher", "optimizer", "copy", "data")
PROCESSES = ("read", "decode", "resize", "slot")

_DECADES = 20  # greatest loss over the least from which the axis is logarithmic
_AVERAGES = {"ema": "--", "average": ":"}  # of the weights: what their scores begin with, and their line

Rows = list[dict[str, Any]]


class Group(NamedTuple):
    """Runs that differ in the seed alone, or a single one."""

    name: str
    runs: list[Path]


class _Line(NamedTuple):
    """The mean of a group's runs at each of P places, of those that have got there, and their standard deviation."""

    x: np.ndarray  # [P]
    mean: np.ndarray  # [P]
    spread: np.ndarray  # [P]; 0 of a single one


def draw(runs: Sequence[Path], output: Path) -> None:
    """A loss and the primary validation score, a line a group of runs; of a single run also where its time went.

    Raises:
        UsageError: a folder has no metrics.jsonl.
    """
    metrics = {run: read_metrics(run) for run in dict.fromkeys(runs)}
    first, several = metrics[runs[0]], len(metrics) > 1
    common = _comparable_loss(metrics) if several else None
    timed = [] if several else [row for row in first if "time/data" in row]
    has_loss, has_time = not several or common is not None, len(timed) > 1
    figure = plt.figure(figsize=(5.5 + 5.5 * has_loss + 4 * has_time, 4), layout="constrained")
    grid = figure.add_gridspec(2, 1 + has_loss + has_time)
    if common:
        _draw_loss(figure.add_subplot(grid[:, 0]), metrics, common)
    elif has_loss:
        _draw_training_loss(figure.add_subplot(grid[:, 0]), first)
    _draw_scores(figure.add_subplot(grid[:, has_loss]), metrics)
    for axes in figure.axes:
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    if has_time:
        _draw_time(figure.add_subplot(grid[0, 2]), timed, TRAINER, "Time of the trainer")
        _draw_time(figure.add_subplot(grid[1, 2]), timed, PROCESSES, "Time of the decoding processes")
    for axes in figure.axes:
        axes.xaxis.set_major_locator(MaxNLocator(steps=[1, 2, 5, 10], integer=True, min_n_ticks=1))
    save(figure, output)


def groups(runs: Sequence[Path]) -> list[Group]:
    """The runs, those together that differ in nothing but name, folder and seed; in the order of the first of each."""
    alike: dict[str, list[tuple[Path, Any]]] = {}
    for run in runs:
        try:
            settings = log.settings_of(log.read_config(run))
            compared = [name for name in settings if log.is_compared(name) and name != log.SEED]
            key = json.dumps([(name, settings[name]) for name in compared])
        except ExpectedError:  # its settings are not known
            settings, key = {}, str(run)
        alike.setdefault(key, []).append((run, settings.get(log.SEED)))
    found = []
    for members in alike.values():
        paths = [run for run, _ in members]
        seeds = len({seed for _, seed in members})
        if seeds == len(paths) > 1:
            found.append(Group(f"{_common_name(paths)}, {seeds} seeds", paths))
        else:  # the same run twice is no spread over seeds
            found += [Group(run.name, [run]) for run in paths]
    return found


def _common_name(runs: Sequence[Path]) -> str:
    """What the names begin with, without what stands before the number of the seed."""
    same = itertools.takewhile(lambda letters: len({*letters}) == 1, zip(*(run.name for run in runs)))
    common = "".join(letters[0] for letters in same)
    return re.sub(r"[\W_]*(seed)?[\W_]*$", "", common) or runs[0].name


class _Loss(NamedTuple):
    """A loss that means the same in all runs."""

    title: str
    place: str  # epoch or step
    points: Callable[[Rows], dict[float, float]]


def _comparable_loss(metrics: dict[Path, Rows]) -> _Loss | None:
    """The loss of the validation; where the task has none there, the sum of the training terms that all have; or none.

    Of runs of several tasks there is none.
    """
    validations = [val for rows in metrics.values() if (val := log.of_kind(rows, "val"))]
    if len({primary(val) for val in validations}) > 1:
        return None
    if validations and all("loss" in val[0] for val in validations):
        return _Loss("Validation loss", "epoch", lambda rows: _points(log.of_kind(rows, "val"), "epoch", "loss"))
    try:
        terms = [_terms(log.read_config(run)) for run in metrics]
    except ExpectedError:
        return None
    shared = [name for name in terms[0] if all(one.get(name) == terms[0][name] for one in terms)]

    def summed(rows: Rows) -> dict[float, float]:
        return {row["step"]: sum(row[name] for name in shared) for row in rows if {*shared} <= row.keys()}

    return _Loss(f"Training loss: {' + '.join(shared)}", "step", summed) if shared else None


def _terms(config: dict[str, Any]) -> dict[str, Any]:
    """What the terms of the last phase compute, by name."""
    terms = [*config["phases"].values()][-1]["terms"]
    return {name: (term.get("objective"), term.get("options")) for name, term in terms.items()}


def _points(rows: Rows, place: str, name: str) -> dict[float, float]:
    """Values by epoch or step."""
    return {row[place]: row[name] for row in rows if name in row}


def _mean(runs: Sequence[dict[float, float]]) -> _Line:
    places = sorted(set().union(*runs))
    values = [np.array([run[place] for run in runs if place in run], float) for place in places]
    spread = [one.std(ddof=1) if len(one) > 1 else 0.0 for one in values]
    return _Line(np.array(places), np.array([one.mean() for one in values]), np.array(spread))


def _draw_scores(axes: Axes, metrics: dict[Path, Rows]) -> None:
    """By epoch, of the students and of the averages of their weights."""
    val = {run: log.of_kind(rows, "val") for run, rows in metrics.items()}
    names = [*dict.fromkeys(filter(None, map(primary, val.values())))]
    for group, color in _colored(groups([*metrics])):
        name = next(filter(None, (primary(val[run]) for run in group.runs)), None)
        for kind, style in {"": "-", **_AVERAGES}.items():
            score = f"{kind}_{name}" if kind else f"{name}"
            line = _mean([_points(val[run], "epoch", score) for run in group.runs])
            if len(line.x):
                label = f"{group.name}, {kind.upper() if kind == 'ema' else kind}" if kind else group.name
                _draw_line(axes, line, color, linestyle=style, marker=".", label=label)
    shown = " and ".join(names) or "scores"
    axes.set(xlabel="epoch", ylabel=f"{shown} (%)", title=f"Validation {shown}")
    if names:
        axes.legend(fontsize="small")


def _draw_loss(axes: Axes, metrics: dict[Path, Rows], loss: _Loss) -> None:
    values: list[float] = []
    for group, color in _colored(groups([*metrics])):
        line = _mean([loss.points(metrics[run]) for run in group.runs])
        _draw_line(axes, line, color)
        values += line.mean.tolist()
    axes.set(xlabel=loss.place, ylabel="loss", title=loss.title)
    if values and min(values) > 0 and max(values) > _DECADES * min(values):
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")  # its own writes formulas


def _draw_training_loss(axes: Axes, rows: Rows) -> None:
    """By step, a line a phase, for each has terms of its own."""
    train = log.of_kind(rows, "train")
    phases = [*dict.fromkeys(row.get("phase", "") for row in train)]
    for number, phase in enumerate(phases):
        points = _points([row for row in train if row.get("phase", "") == phase], "step", "loss")
        _draw_line(axes, _mean([points]), f"C{number}", label=phase)
    if len(phases) > 1:
        axes.legend(fontsize="small", title="phase")
    axes.set(xlabel="step", ylabel="loss", title="Training loss")


def _colored(found: Sequence[Group]) -> Iterator[tuple[Group, Any]]:
    colors = matplotlib.color_sequences["tab10" if len(found) <= 10 else "tab20"]
    return zip(found, itertools.cycle(colors))


def _draw_line(axes: Axes, line: _Line, color: Any, **look: Any) -> None:
    if len(line.x) == 1:
        look["marker"] = "."  # a line through one point is not seen
    axes.plot(line.x, line.mean, color=color, **look)
    if line.spread.any():
        axes.fill_between(line.x, line.mean - line.spread, line.mean + line.spread, color=color, alpha=0.2, linewidth=0)


def _draw_time(axes: Axes, rows: Rows, parts: tuple[str, ...], title: str) -> None:
    """Shares by step, one upon the other."""
    shares = [[100 * row.get(f"time/{part}", 0.0) for row in rows] for part in parts]
    axes.stackplot([row["step"] for row in rows], shares, labels=parts)
    axes.set(xlabel="step", ylabel="%", ylim=(0, 100), title=title)
    axes.legend(fontsize="x-small", loc="upper left", bbox_to_anchor=(1, 1))


@exit_with_its_code
def main() -> None:
    """Draw the curves of the runs on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="run folders")
    parser.add_argument("--output", type=png, help="PNG to write (default: curves.png in the run, or beside several)")
    options = parser.parse_args()
    first = options.runs[0]
    output = options.output or (first.parent if len(options.runs) > 1 else first) / "curves.png"
    check_output(output)
    draw(options.runs, output)
    print(output)


if __name__ == "__main__":
    main()
