"""Say what a packed split holds, find damage in it, and draw a contact sheet.

    python dataset/inspect_lmdb.py /data/lmdb/train
    python dataset/inspect_lmdb.py /data/lmdb --verify

PATH is a split, or the folder above it and then every split in it. LMDB folders in WSLD's format are read too. The
sheet shows images of all classes, each with three training windows (RandomResizedCrop of the default scale and ratio);
what decoding the first of them does not read is dimmed. Damage is listed and does not stop the command, which ends with
exit code 3 then.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import matplotlib

matplotlib.use("Agg")

import numpy as np
import simplejpeg
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from dataset import views
from dataset.batches import DataConfig
from dataset.images import decode, find_damage, image_size, read_header
from dataset.img2lmdb import REPORT
from dataset.record import Boxes, Record, labels_of
from dataset.shards import INDEX, ShardReader, describe
from dataset.sources.imagenet import SPLITS
from dataset.sources.wsld import WsldReader, is_wsld_folder
from dataset.tiles import NotTiled, _read_frame, window_jpeg
from utils.console import exit_with_its_code, progress
from utils.errors import DataError, UsageError

_SAMPLE = 2000  # records whose JPEG files are looked at
_ROWS, _COLUMNS = 4, 6  # of the sheet
_COLORS = ("#ff3b5c", "#ffd60a", "#30d5ff")  # of the windows
_QUANTILES = {"least": 0.0, "10 %": 0.1, "median": 0.5, "90 %": 0.9, "greatest": 1.0}

Samples = ShardReader | WsldReader
Faults = dict[str, str]  # key of a record or name of a file: what is wrong with it


@dataclass(frozen=True)
class Coding:
    """How one image is coded."""

    size: tuple[int, int]  # height and width, pixels
    bytes: int
    chroma: str  # 4:2:0, gray, ...
    interval: tuple[int, int] | None  # height and width of a restart interval, pixels
    why: str  # it has none
    window_bytes: int  # that a training window reads


@exit_with_its_code
def main() -> None:
    """Print the facts of each split, draw its sheet, list its damage."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("path", type=Path, metavar="PATH", help="a split, or the folder that holds several")
    add("--verify", action="store_true", help="compare every checksum; WSLD's format has none: decode every image")
    add("--sheet", type=Path, default=Path("contact_sheet.png"), help="PNG to draw (default: contact_sheet.png here)")
    options = parser.parse_args()
    folders = find_splits(options.path)
    damaged = 0
    for folder in folders:
        sheet: Path = options.sheet
        if len(folders) > 1:
            sheet = sheet.with_name(f"{sheet.stem}_{folder.name}{sheet.suffix}")
        faults: Faults = {}
        try:
            inspect(folder, sheet, faults, verify=options.verify)
        except DataError as error:
            faults[str(folder)] = str(error)
        for name, what in faults.items():
            print(f"damaged: {_printable(name)}: {what}", file=sys.stderr)
        damaged += len(faults)
    if damaged:
        raise DataError(f"{damaged} records or files are damaged (named above): copy or pack their shards again")


def find_splits(path: Path) -> list[Path]:
    """``path`` itself, or the splits in it.

    Raises:
        UsageError: it is not a folder.
    """
    if not path.is_dir():
        raise UsageError(f"{path} is not a folder: expected a split that img2lmdb.py wrote, or the folder above it")
    below = [folder for folder in sorted(path.iterdir()) if _is_split(folder)]
    # A split in WSLD's format may itself be a folder of LMDB folders.
    if not below or (is_wsld_folder(path) and not any(folder.name in SPLITS for folder in below)):
        return [path]
    return below


def inspect(folder: Path, sheet: Path, faults: Faults, *, verify: bool) -> None:
    """Print what the split in ``folder`` holds and draw its ``sheet``; what is damaged is added to ``faults``.

    Raises:
        DataError: the split cannot be opened.
    """
    wsld = not (folder / INDEX).exists() and is_wsld_folder(folder)
    samples = WsldReader(folder) if wsld else ShardReader(folder)
    labels = _labels(samples)
    megabytes = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6
    print(folder)
    _line("images", f"{len(samples):,}")
    if isinstance(samples, ShardReader):
        _line("shards", f"{len(samples.index.shards):,}, {megabytes:,.1f} MB on disk")
        _line("packed", ", ".join(f"{name}={value}" for name, value in samples.index.packing.items()))
        if (folder / REPORT).exists():
            _line("remarks", f"{len((folder / REPORT).read_bytes().splitlines()):,} in {REPORT}")
        if verify:
            _compare_checksums(samples, faults)
    else:
        _line("format", f"WSLD's, without checksums, {megabytes:,.1f} MB on disk")
    _print_classes(samples.classes, _images_a_class(labels, len(samples.classes)))

    count = len(samples) if wsld and verify else min(len(samples), _SAMPLE)
    chosen = np.linspace(0, len(samples) - 1, count).astype(np.int64).tolist()
    sample = "" if count == len(samples) else f" of a sample of {count:,}, spread evenly"
    looks = (_look_at(samples, index, faults) for index in progress(iterable=chosen, desc="decoding", unit="img"))
    codings = [coding for coding in looks if coding is not None]
    if codings:
        if wsld:
            _print_sizes(np.array([coding.size for coding in codings]), sample)
        _print_coding(codings, sample)
    if isinstance(samples, ShardReader):
        _print_sizes(samples.sizes, "")
    draw_sheet(samples, labels, sheet, faults)
    _line("sheet", str(sheet))
    samples.close()


def _is_split(folder: Path) -> bool:
    return (folder / INDEX).exists() or any(folder.glob("*.lmdb")) or is_wsld_folder(folder)
