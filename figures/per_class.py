"""Average precision of each class of a run of several labels an image, or of detection: a bar a class, the best on top.

python -m figures.per_class runs/x/per_class.csv [--score AP_voc] [--output per_class.png]
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from dataset.class_names import names_for_people
from utils.console import exit_with_its_code, png
from utils.errors import UsageError
from utils.files import check_output
from utils.plots import plt, save
from utils.text import counted, printable


def plot(rows: Sequence[Mapping[str, object]], score: str = "") -> Figure:
    """A bar a class that has a ``score``, and a line at their mean.

    Args:
        rows: of the table of classes (`evaluation.class_table`), the means in the last one.
        score: a column; the first average precision where it is empty.

    Raises:
        UsageError: there is no such column, or no class has a value in it.
    """
    name = score or next((column for column in rows[0] if column.startswith("AP")), "")
    if name not in rows[0]:
        raise UsageError(f"no column {name!r}; there is {', '.join(rows[0])}")
    names = names_for_people([str(row["class"]) for row in rows[:-1]])
    values = [(float(str(row[name])), printable(one)) for row, one in zip(rows, names) if row[name] not in ("", None)]
    if not values:
        raise UsageError(f"no class has a value of {name}")
    values.sort(key=lambda pair: pair[0])
    figure, axes = plt.subplots(figsize=(8, 1.2 + 0.2 * len(values)), layout="constrained")
    places = range(len(values))
    axes.barh(places, [value for value, _ in values], height=0.75)
    axes.set_yticks(places, [label for _, label in values], fontsize="small")
    numbers = axes.secondary_yaxis("right")
    numbers.set_yticks(places, [f"{value:.1f}" for value, _ in values], fontsize="small")
    numbers.tick_params(length=0)
    numbers.spines["right"].set_visible(False)
    mean = sum(value for value, _ in values) / len(values)
    axes.axvline(mean, color="black", linestyle="--", linewidth=1)
    absent = len(rows) - 1 - len(values)
    what = "objects" if "objects" in rows[0] else "positives"
    left_out = f"; {counted(absent, 'class')} without {what} left out" if absent else ""
    axes.set(xlabel=f"{name} (%)", xlim=(0, 100), ylim=(-0.6, len(values) - 0.4))
    axes.set_title(f"Mean {mean:.2f} of {counted(len(values), 'class')}{left_out}")
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def draw_in(folder: Path) -> None:
    """The picture of the table of classes in ``folder``, beside it, where there is one."""
    if (table := folder / "per_class.csv").exists():
        draw(table, folder / "per_class.png")


def draw(table: Path, output: Path, score: str = "") -> None:
    """Draw a per_class.csv, as `plot` does.

    Raises:
        UsageError: it is no such table.
    """
    try:
        rows = list(csv.DictReader(table.read_text("utf-8").splitlines()))
    except FileNotFoundError:
        raise UsageError(f"{table} is missing: a run of several labels an image, or of detection, writes it") from None
    if not rows or "class" not in rows[0]:
        raise UsageError(f"{table} is not a table of classes")
    figure = plot(rows, score)
    save(figure, output)


@exit_with_its_code
def main() -> None:
    """Draw the table on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path, help="per_class.csv of a run")
    parser.add_argument("--score", default="", help="column to draw (default: the first average precision)")
    parser.add_argument("--output", type=png, help="PNG to write (default: per_class.png beside the table)")
    options = parser.parse_args()
    output = options.output or options.table.with_name("per_class.png")
    check_output(output)
    draw(options.table, output, options.score)
    print(output)


if __name__ == "__main__":
    main()
