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

from utils.console import exit_with_its_code, png
from utils.errors import UsageError
from utils.rows import read_rows

_PLACE = ("kind", "phase", "stage", "epoch", "step")  # what stands before the scores in a row; older runs have stages


def draw(runs: list[Path], output: Path) -> None:
    """Training loss by step, and the primary validation score by epoch, one colour a run.

    Raises:
        UsageError: a folder has no metrics.jsonl.
    """
    figure, (loss, score) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    names = []
    for run in runs:
        rows = read_metrics(run)
        train, val = ([row for row in rows if row["kind"] == kind] for kind in ("train", "val"))
        loss.plot([row["step"] for row in train], [row["loss"] for row in train], label=run.name)
        if name := primary(val):
            names.append(name)
            (line,) = score.plot([row["epoch"] for row in val], [row[name] for row in val], label=run.name, marker=".")
            if f"ema_{name}" in val[0]:
                averaged = {"color": line.get_color(), "label": f"{run.name}, EMA"}
                score.plot([r["epoch"] for r in val], [r[f"ema_{name}"] for r in val], "--", **averaged)
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
