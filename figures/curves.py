"""Learning curves of one or more runs.

python -m figures.curves runs/x [runs/y ...] [--output curves.png]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from utils.console import exit_with_its_code, png
from utils.errors import UsageError
from utils.rows import read_rows

_PLACE = ("kind", "phase", "stage", "epoch", "step")  # what stands before the scores in a row; older runs have stages

# Shares of time in a row of training, as `training.spent` has them; older runs have none.
_TRAINER = ("student", "teacher", "optimizer", "copy", "data")
_PROCESSES = ("read", "decode", "resize", "slot")


def draw(runs: list[Path], output: Path) -> None:
    """Training loss by step, primary validation score by epoch, one colour a run; of a single one, where its time went.

    Raises:
        UsageError: a folder has no metrics.jsonl.
    """
    metrics = {run: read_metrics(run) for run in runs}
    timed = [row for row in metrics[runs[0]] if "time/data" in row] if len(runs) == 1 else []
    figure = plt.figure(figsize=(15 if timed else 11, 4), layout="constrained")
    if timed:
        grid = figure.add_gridspec(2, 3)
        loss, score = (figure.add_subplot(grid[:, column]) for column in (0, 1))
        _draw_time(figure.add_subplot(grid[0, 2]), timed, _TRAINER, "Time of the trainer")
        _draw_time(figure.add_subplot(grid[1, 2]), timed, _PROCESSES, "Time of the decoding processes")
    else:
        loss, score = figure.subplots(1, 2)
    names = []
    for run, rows in metrics.items():
        train, val = ([row for row in rows if row["kind"] == kind] for kind in ("train", "val"))
        loss.plot([row["step"] for row in train], [row["loss"] for row in train], label=run.name)
        if name := primary(val):
            names.append(name)
            (line,) = score.plot([row["epoch"] for row in val], [row[name] for row in val], label=run.name, marker=".")
            if f"ema_{name}" in val[0]:
                averaged = [row["epoch"] for row in val], [row[f"ema_{name}"] for row in val]
                score.plot(*averaged, "--", color=line.get_color(), label=f"{run.name}, EMA")
    shown = " and ".join(dict.fromkeys(names)) or "scores"
    loss.set(xlabel="step", ylabel="training loss", title="Training loss")
    score.set(xlabel="epoch", ylabel=f"{shown} (%)", title=f"Validation {shown}")
    for axes in (loss, score):
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    if names:
        score.legend(fontsize="small")
    figure.savefig(output, dpi=120)
    plt.close(figure)


def _draw_time(axes: Axes, rows: list[dict], parts: tuple[str, ...], title: str) -> None:
    """Shares by step, one upon the other."""
    shares = [[100 * row.get(f"time/{part}", 0.0) for row in rows] for part in parts]
    axes.stackplot([row["step"] for row in rows], shares, labels=parts)
    axes.set(xlabel="step", ylabel="%", ylim=(0, 100), title=title)
    axes.legend(fontsize="x-small", loc="upper left", bbox_to_anchor=(1, 1))


def primary(val: list[dict]) -> str | None:
    """The score by which the run's best student is chosen: a task gives it first. None before the first epoch's end."""
    return next((name for name in val[0] if name not in _PLACE), None) if val else None


def read_metrics(run: Path) -> list[dict]:
    """The lines of a run's metrics.jsonl."""
    path = run / "metrics.jsonl"
    if not path.exists():
        raise UsageError(f"{path} is missing: {run} is not a run folder")
    rows, unread = read_rows(path)
    if unread:
        print(f"{path}: {unread} lines cannot be read and are left out", file=sys.stderr)
    return rows


@exit_with_its_code
def main() -> None:
    """Draw the curves of the runs on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="run folders")
    parser.add_argument("--output", type=png, help="PNG to write (default: curves.png in the run, or beside several)")
    options = parser.parse_args()
    first = options.runs[0]
    output = options.output or (first.parent if len(options.runs) > 1 else first) / "curves.png"
    draw(options.runs, output)
    print(output)


if __name__ == "__main__":
    main()
