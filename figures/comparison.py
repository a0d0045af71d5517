"""Several runs beside each other: what each reached, and in what their settings differ.

python -m figures.comparison runs/x runs/y ... [--output FOLDER]

prints a table, and writes it as comparison.json, and the learning curves as comparison.png, beside the runs::

    [{"name": "x", "folder": "runs/x", "scores": {"epoch": 5, "step": 600, "top1": 71.2, ...}, "epochs": 5, "of": 5,
      "differs": {"terms.wsld.weight": 2.5}}, ...]

`scores` are those of the epoch with the best student, empty before the first epoch's end.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from figures import curves, log
from utils.console import exit_with_its_code
from utils.files import make_folder, write_atomically
from utils.settings import show
from utils.text import counted

_SHOWN = 4  # settings in a row of the table


def compare(runs: Sequence[Path], output: Path) -> str:
    """The table of some runs, best first, and where their curves are: beside ``output``, a JSON file of the same table.

    Raises:
        UsageError: one is no run folder.
        DataError: a file in one is damaged.
    """
    configs = [log.read_config(run) for run in runs]
    rows = [_row(run, config) for run, config in zip(runs, configs)]
    for row, differs in zip(rows, log.differing(configs)):
        row["differs"] = differs
    write_atomically(output, log.as_json(rows).encode())
    if begun := [run for run in runs if (run / "metrics.jsonl").exists()]:
        curves.draw(begun, output.with_suffix(".png"))
    return f"{_table(rows)}\n{output.with_suffix('.png') if begun else output}"


def _row(run: Path, config: dict[str, Any]) -> dict[str, Any]:
    rows = log.metrics_so_far(run)
    return {
        "name": run.name,
        "folder": str(run),
        "scores": log.scores(log.best_row(rows)),
        "epochs": log.epochs_done(rows),
        "of": log.epochs_of(config),
    }


def _table(rows: list[dict[str, Any]]) -> str:
    primary = next((log.primary([row["scores"]]) for row in rows if row["scores"]), None) or "score"
    shown = [("run", primary, "epoch", "differs in")]
    for row in sorted(rows, key=_height, reverse=True):
        best = f"{log.highest(row['scores']):.3f}" if row["scores"] else "none"
        last = "" if row["epochs"] == row["of"] else f" (ended after {row['epochs']})"
        differs = [f"{key}={show(value)}" for key, value in row["differs"].items()]
        more = f" and {counted(len(differs) - _SHOWN, 'setting')} more" if len(differs) > _SHOWN else ""
        epoch = f"{row['scores'].get('epoch', 0):g}/{row['of']}{last}"
        shown.append((row["name"], best, epoch, " ".join(differs[:_SHOWN]) + more))
    widths = [max(len(row[column]) for row in shown) for column in range(3)]
    return "\n".join("  ".join([*(text.ljust(width) for text, width in zip(row, widths)), row[3]]) for row in shown)


def _height(row: dict[str, Any]) -> float:
    """What rows are sorted by; those without a score, or with one that is no number, come last."""
    height = log.highest(row["scores"]) if row["scores"] else math.nan
    return -math.inf if math.isnan(height) else height


@exit_with_its_code
def main() -> None:
    """Compare the runs on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="run folders")
    parser.add_argument("--output", type=Path, help="folder to write to (default: the one that holds the first run)")
    options = parser.parse_args()
    folder = options.output or options.runs[0].parent
    make_folder(folder, "--output")
    print(compare(options.runs, folder / "comparison.json"))


if __name__ == "__main__":
    main()
