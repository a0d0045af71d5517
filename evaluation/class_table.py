"""The table of a task's classes, `per_class.csv`: a row a class, the means in the last one."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from dataset.class_names import names_for_people
from utils.files import write_atomically
from utils.text import counted, printable

Row = dict[str, str | int | float | None]  # by column; scores are percent, and None where there is none


def mean(values: np.ndarray) -> float:
    """The mean of those that are not NaN; NaN where all are."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else math.nan


def percent(share: float) -> float | None:
    """A share of 0 to 1 as a score of the table; None for NaN."""
    return None if math.isnan(share) else 100 * float(share)


def table(
    classes: Sequence[str], numbers: Mapping[str, np.ndarray], shares: Mapping[str, np.ndarray], of: int
) -> list[Row]:
    """A row a class, and the means over ``of`` classes in the last one.

    Where people call classes otherwise than data does, as those of ImageNet, the second column says how.

    Args:
        classes: K names.
        numbers: columns of whole numbers, [K].
        shares: columns of shares, 0 to 1, [K]; NaN where a class has none.
        of: how many have some.
    """
    names = names_for_people(classes)
    named = names != [*classes]
    rows: list[Row] = [
        {
            "class": name,
            **({"name": names[place]} if named else {}),
            **{column: int(values[place]) for column, values in numbers.items()},
            **{column: percent(values[place]) for column, values in shares.items()},
        }
        for place, name in enumerate(classes)
    ]
    means = {column: percent(mean(values)) for column, values in shares.items()}
    empty = dict.fromkeys((*(["name"] if named else []), *numbers))
    return [*rows, {"class": f"mean of {counted(of, 'class')}", **empty, **means}]


def write_table(path: Path, rows: Sequence[Row]) -> None:
    """Write ``rows`` as CSV: scores with four decimals, a name on one line.

    Raises:
        DataError: the disk is full or cannot be written.
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({column: _cell(value) for column, value in row.items()} for row in rows)
    write_atomically(path, text.getvalue().encode())


def _cell(value: str | int | float | None) -> str | int | None:
    if isinstance(value, str):
        return printable(value)
    return f"{value:.4f}" if isinstance(value, float) else value
