"""matplotlib for files: without a screen, and with every text as it is written, for `$` in a name is no formula."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from utils.files import write_atomically

__all__ = ["plt", "save"]

matplotlib.rcParams["text.parse_math"] = False


def save(figure: Figure, output: Path, dpi: int = 120) -> None:
    """Write a figure as a PNG, and close it.

    Raises:
        DataError: the file cannot be written.
    """
    write_atomically(output, lambda file: figure.savefig(file, format="png", dpi=dpi))
    plt.close(figure)
