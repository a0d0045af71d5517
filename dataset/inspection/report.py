"""The facts of a split and what is damaged in it, printed."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dataset.inspection.sheet import Faults, draw_sheet, images_a_class, read_or_note, training_windows
from dataset.jpeg.damage import find_damage
from dataset.jpeg.decode import decode, window_intervals
from dataset.jpeg.header import read_header
from dataset.jpeg.images import image_size
from dataset.jpeg.raw import raw_pixels
from dataset.jpeg.tiles import NotTiled, read_frame
from dataset.sources.imagenet import SPLITS
from dataset.sources.walk import folders_in
from dataset.store.index import INDEX, REPORT, Shard, describe
from dataset.store.packed import is_packed, open_packed
from dataset.store.record import is_unlabelled
from dataset.store.samples import Samples
from dataset.store.wsld import is_wsld_folder
from utils.console import progress
from utils.errors import DataError, UsageError
from utils.text import counted, printable

_SAMPLE = 2000  # records whose images are decoded
_RAW = "raw pixels"
_TARGETS = {"single": "a class an image", "multi": "several classes an image", "detection": "boxes"}
_QUANTILES = {"least": 0.0, "10 %": 0.1, "median": 0.5, "90 %": 0.9, "greatest": 1.0}


@dataclass(frozen=True)
class Coding:
    """How one image is coded."""

    size: tuple[int, int]  # height and width, pixels
    bytes: int
    chroma: str  # 4:2:0, gray, ...; or that it is no JPEG
    interval: tuple[int, int] | None  # height and width of a restart interval, pixels
    why: str  # it has none
    window_bytes: int  # that a training window reads


def find_splits(path: Path) -> list[Path]:
    """``path`` itself, or the splits in it.

    Raises:
        UsageError: it is not a folder, or holds none.
    """
    if not path.is_dir():
        raise UsageError(f"{path} is not a folder: expected a split that img2lmdb.py wrote, or the folder above it")
    below = [path / name for name in folders_in(path) if is_packed(path / name)]
    if not below and not is_packed(path):
        raise UsageError(f"{path} holds no split: no {INDEX}, no *.lmdb, no data.mdb, and no folder with one of them")
    # A split in WSLD's format may itself be a folder of LMDB folders.
    if not below or (is_wsld_folder(path) and not any(folder.name in SPLITS for folder in below)):
        return [path]
    return below


def inspect(folder: Path, sheet: Path, *, verify: bool) -> int:
    """Print what the split in ``folder`` holds and draw its ``sheet``; returns how many records and files are damaged.

    Raises:
        DataError: the split cannot be opened.
    """
    faults: Faults = {}
    samples = open_packed(folder)
    print(folder)
    _line("images", f"{len(samples):,}")
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    if samples.packed is not None:
        index = samples.packed[1]
        _line("shards", f"{len(index.shards):,}, {size / 1e6:,.1f} MB on disk")
        _line("targets", _TARGETS[index.target])
        if verify:
            _compare_checksums(samples, folder, index.shards, faults)
        if index.packing:
            _line("packed with", ", ".join(f"{name}={value}" for name, value in index.packing.items()))
        if (folder / REPORT).exists():
            _line("remarks", f"{len((folder / REPORT).read_bytes().splitlines()):,} in {REPORT}")
    else:
        _line("format", f"WSLD's, without checksums; {size / 1e6:,.1f} MB on disk")
    labels = samples.labels
    _print_classes(samples.classes, labels)

    has_checksums = samples.packed is not None
    count = len(samples) if verify and not has_checksums else min(len(samples), _SAMPLE)
    chosen = np.linspace(0, len(samples) - 1, count).astype(np.int64).tolist()
    decoded = (_coding(samples, index, faults) for index in progress(iterable=chosen, desc="decoding", unit="img"))
    codings = [coding for coding in decoded if coding is not None]
    of = f"of {'all' if count == len(samples) else 'a sample, spread evenly,'} {len(codings):,} images"
    if samples.sizes is not None:
        _print_sizes(samples.sizes, f"of all {len(samples):,} images")
    elif codings:
        _print_sizes(np.array([coding.size for coding in codings]), of)
    if codings:
        _print_coding(codings, of)
    draw_sheet(samples, labels, sheet, faults)
    _line("sheet", str(sheet))
    keys = samples.keys() if faults else []
    for place, what in faults.items():
        name = keys[place] if isinstance(place, int) else place
        print(f"damaged: {printable(name)}: {what}", file=sys.stderr)
    samples.close()
    return len(faults)


def _compare_checksums(samples: Samples, folder: Path, shards: tuple[Shard, ...], faults: Faults) -> None:
    """Of the shards, and of each record in a shard that differs."""
    first = differing = 0
    with progress(total=sum(shard.bytes for shard in shards), desc="checksums", unit="B", unit_scale=True) as bar:
        for shard in shards:
            if describe(folder / shard.file, shard.records) != shard:
                differing += 1
                faults[shard.file] = f"not what {INDEX} describes"
                for index in range(first, first + shard.records):
                    read_or_note(samples, index, faults)
            first += shard.records
            bar.update(shard.bytes)
    text = counted(differing, "shard differs", "shards differ")
    _line("checksums", text if differing else "all shards are as they were packed")


def _coding(samples: Samples, index: int, faults: Faults) -> Coding | None:
    record = read_or_note(samples, index, faults)
    if record is None:
        return None
    data = record.image
    try:
        header = read_header(data)
        if header is None:  # what cifar2lmdb.py packs; in WSLD's format a PNG
            height, width, _ = decode(data).shape
            kind = "not JPEG" if raw_pixels(data) is None else _RAW
            return Coding((height, width), len(data), kind, None, kind, len(data))
        find_damage(data)
        size = image_size(data)
    except DataError as error:
        faults[index] = str(error)
        return None
    interval, why = None, "no restart markers"
    try:
        read_frame(data)
        if header.restart:
            interval = header.mcu[0], header.mcu[1] * header.restart
    except NotTiled as reason:
        why = str(reason)
    intervals = window_intervals(data, training_windows(index, size, 1)[0])
    read = len(data) if intervals is None else int((intervals[:, 1] - intervals[:, 0]).sum())
    return Coding(size, len(data), header.chroma, interval, why, read)


def _print_classes(classes: tuple[str, ...], labels: np.ndarray) -> None:
    if is_unlabelled(labels):
        _line("classes", f"{len(classes):,}; no image has a label")
        return
    counts = images_a_class(labels, len(classes))
    order = np.argsort(counts, kind="stable")
    _line("classes", f"{len(classes):,}; images in the")
    for name, place in (("smallest", 0), ("median", len(order) // 2), ("largest", -1)):
        _line(f"  {name}", f"{counts[order[place]]:10,}  {classes[order[place]]}")
    empty = [classes[label] for label in np.flatnonzero(counts == 0)]
    if empty:
        _line("  empty", f"{len(empty):,}: {', '.join(empty[:5])}{', ...' if len(empty) > 5 else ''}")


def _print_sizes(sizes: np.ndarray, of: str) -> None:
    pixels = sizes.prod(axis=1, dtype=np.int64)
    _line("size", of)
    _line("", "".join(f"{name:>10}" for name in _QUANTILES))
    _print_quantiles("  height", sizes[:, 0])
    _print_quantiles("  width", sizes[:, 1])
    _print_quantiles("  megapixels", pixels / 1e6, digits=2)
    height, width = sizes[pixels.argmax()]
    _line("  most pixels", f"{width} wide, {height} high")


def _print_coding(codings: list[Coding], of: str) -> None:
    intervals = [coding.interval for coding in codings if coding.interval]
    total = sum(coding.bytes for coding in codings)
    raw = all(coding.chroma == _RAW for coding in codings)
    _line(_RAW if raw else "JPEG", of)
    _line("  bytes", f"{total / len(codings):,.0f} an image")
    if raw:
        return
    _line("  chroma", _shares(coding.chroma for coding in codings))
    _line(
        "  tiled", _shares("in restart intervals" if coding.interval else f"whole ({coding.why})" for coding in codings)
    )
    _line("  windows", f"read {100 * sum(coding.window_bytes for coding in codings) / total:.1f} % of the bytes")
    if intervals:
        heights, widths = zip(*intervals)
        _line("  intervals", _shares(f"{height} pixels high" for height in heights))
        _line("", "".join(f"{name:>10}" for name in _QUANTILES))
        _print_quantiles("  width", np.array(widths))


def _print_quantiles(name: str, values: np.ndarray, digits: int = 0) -> None:
    _line(name, "".join(f"{value:10,.{digits}f}" for value in np.quantile(values, list(_QUANTILES.values()))))


def _shares(names: Iterable[str]) -> str:
    """Each name and its share, the most frequent first."""
    counts = Counter(names)
    return ", ".join(f"{100 * count / counts.total():.1f} % {name}" for name, count in counts.most_common())


def _line(name: str, text: str) -> None:
    print(f"  {name:<14}{printable(text)}")
