"""Print what a packed split holds, find damage in it, and draw a contact sheet.

    python dataset/inspect_lmdb.py /data/lmdb/train
    python dataset/inspect_lmdb.py /data/lmdb --verify

PATH is a split, or the folder above it and then every split in it. LMDB folders in WSLD's format are read too. The
sheet shows images of all classes, each with three training windows (RandomResizedCrop of the default scale and ratio);
what decoding the first of them does not read is dimmed. Damage is listed and does not stop the command, which ends with
exit code 3 then.
"""

from __future__ import annotations

import argparse
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
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from dataset.config import DataConfig
from dataset.feed import crops
from dataset.jpeg.damage import find_damage
from dataset.jpeg.decode import decode
from dataset.jpeg.header import read_header
from dataset.jpeg.images import image_size
from dataset.jpeg.raw import raw_pixels
from dataset.jpeg.tiles import NotTiled, read_frame, window_jpeg
from dataset.sources.imagenet import SPLITS
from dataset.sources.walk import folders_in
from dataset.store.index import INDEX, REPORT, Shard, describe
from dataset.store.reader import ShardReader
from dataset.store.record import Boxes, Record, labels_of
from dataset.store.samples import Samples
from dataset.store.wsld import WsldReader, is_wsld_folder
from utils.console import exit_with_its_code, progress
from utils.errors import DataError, UsageError
from utils.files import make_folder, write_atomically
from utils.text import counted, printable

_SAMPLE = 2000  # records whose images are decoded
_ROWS, _COLUMNS = 4, 6  # of the sheet
_COLORS = ("#ff3b5c", "#ffd60a", "#30d5ff")  # of the windows
_RAW = "raw pixels"
_QUANTILES = {"least": 0.0, "10 %": 0.1, "median": 0.5, "90 %": 0.9, "greatest": 1.0}

Window = tuple[int, int, int, int]  # top, left, height, width
Faults = dict[int | str, str]  # number of a record, or name of a file: what is wrong with it


@dataclass(frozen=True)
class Coding:
    """How one image is coded."""

    size: tuple[int, int]  # height and width, pixels
    bytes: int
    chroma: str  # 4:2:0, gray, ...; or that it is no JPEG
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
    if not options.sheet.parent.is_dir():
        raise UsageError(f"--sheet: {options.sheet.parent} is not a folder")
    if options.sheet.is_dir():
        raise UsageError(f"--sheet: {options.sheet} is a folder; name a .png file")
    make_folder(options.sheet.parent, "--sheet")
    folders = find_splits(options.path)
    damaged = 0
    for folder in folders:
        sheet: Path = options.sheet
        if len(folders) > 1:
            sheet = sheet.with_name(f"{sheet.stem}_{folder.name}{sheet.suffix}")
        try:
            damaged += inspect(folder, sheet, verify=options.verify)
        except DataError as error:
            state = "damaged" if (folder / INDEX).exists() or is_wsld_folder(folder) else "unfinished"
            print(f"{state}: {error}", file=sys.stderr)
            damaged += 1
    if damaged:
        what = counted(damaged, "record, file or split is", "records, files or splits are")
        raise DataError(f"{what} damaged or unfinished (named above): copy or pack their shards again")


def find_splits(path: Path) -> list[Path]:
    """``path`` itself, or the splits in it.

    Raises:
        UsageError: it is not a folder, or holds none.
    """
    if not path.is_dir():
        raise UsageError(f"{path} is not a folder: expected a split that img2lmdb.py wrote, or the folder above it")
    below = [path / name for name in folders_in(path) if _is_split(path / name)]
    if not below and not _is_split(path):
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
    sharded = (folder / INDEX).exists() or not is_wsld_folder(folder)
    samples: Samples = ShardReader(folder) if sharded else WsldReader(folder)
    print(folder)
    _line("images", f"{len(samples):,}")
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    if samples.packed is not None:
        index = samples.packed[1]
        _line("shards", f"{len(index.shards):,}, {size / 1e6:,.1f} MB on disk")
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

    count = len(samples) if verify and not sharded else min(len(samples), _SAMPLE)
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


def _is_split(folder: Path) -> bool:
    return (folder / INDEX).exists() or any(folder.glob("*.lmdb")) or is_wsld_folder(folder)


def _compare_checksums(samples: Samples, folder: Path, shards: tuple[Shard, ...], faults: Faults) -> None:
    """Of the shards, and of each record in a shard that differs."""
    first = differing = 0
    with progress(total=sum(shard.bytes for shard in shards), desc="checksums", unit="B", unit_scale=True) as bar:
        for shard in shards:
            if describe(folder / shard.file, shard.records) != shard:
                differing += 1
                faults[shard.file] = f"not what {INDEX} describes"
                for index in range(first, first + shard.records):
                    _read(samples, index, faults)
            first += shard.records
            bar.update(shard.bytes)
    text = counted(differing, "shard differs", "shards differ")
    _line("checksums", text if differing else "all shards are as they were packed")


def _read(samples: Samples, index: int, faults: Faults) -> Record | None:
    try:
        return samples.read(index)
    except DataError as error:
        faults[index] = str(error)
        return None


def _coding(samples: Samples, index: int, faults: Faults) -> Coding | None:
    record = _read(samples, index, faults)
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
    part = window_jpeg(np.frombuffer(data, np.uint8), _windows(index, size, 1)[0])
    read = len(data) if part is None else len(part.data)
    return Coding(size, len(data), header.chroma, interval, why, read)


def _windows(index: int, size: tuple[int, int], epochs: int) -> list[Window]:
    """The training windows of a sample in the first epochs."""
    numbers = np.concatenate([crops.uniform(0, epoch, np.array([index]), 40) for epoch in range(epochs)])
    sizes = np.array([size] * epochs)
    windows = crops.random_resized_crop(numbers, sizes, DataConfig.scale, DataConfig.ratio)
    return [tuple(window) for window in windows.tolist()]


def _print_classes(classes: tuple[str, ...], labels: np.ndarray) -> None:
    counts = _images_a_class(labels, len(classes))
    order = np.argsort(counts, kind="stable")
    _line("classes", f"{len(classes):,}; images in the")
    for name, place in (("smallest", 0), ("median", len(order) // 2), ("largest", -1)):
        _line(f"  {name}", f"{counts[order[place]]:10,}  {classes[order[place]]}")
    empty = [classes[label] for label in np.flatnonzero(counts == 0)]
    if empty:
        _line("  empty", f"{len(empty):,}: {', '.join(empty[:5])}{', ...' if len(empty) > 5 else ''}")


def _images_a_class(labels: np.ndarray, classes: int) -> np.ndarray:
    return labels.sum(axis=0) if labels.ndim == 2 else np.bincount(labels, minlength=classes)


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


def draw_sheet(samples: Samples, labels: np.ndarray, output: Path, faults: Faults) -> None:
    """Draw images of all classes with their boxes, three training windows, and what decoding the first one reads.

    Args:
        samples: the split.
        labels: int32 [N], or bool [N, C].
        output: PNG to write.
        faults: images that cannot be read are added.
    """
    figure, axes = plt.subplots(_ROWS, _COLUMNS, figsize=(16, 12))
    figure.subplots_adjust(0.01, 0.04, 0.99, 0.96, wspace=0.08, hspace=0.17)
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, index in zip(axes.flat, _over_classes(labels, len(samples.classes), axes.size)):
        record = _read(samples, index, faults)
        if record is not None:
            try:
                _draw(axis, record, index, samples.classes)
            except DataError as error:
                faults[index] = str(error)
    figure.suptitle("red, yellow, blue: training windows; bright: what decoding the red one reads", size=11)
    write_atomically(output, lambda file: figure.savefig(file, dpi=100, format="png"))
    plt.close(figure)


def _over_classes(labels: np.ndarray, classes: int, count: int) -> list[int]:
    """At most ``count`` samples, spread evenly over the classes that have any and over the images of each."""
    present = np.flatnonzero(_images_a_class(labels, classes))
    shown = present[np.arange(count) * len(present) // count] if len(present) else present
    samples: list[int] = []
    for label, times in zip(*np.unique(shown, return_counts=True)):
        members = np.setdiff1d(np.flatnonzero(labels[:, label] if labels.ndim == 2 else labels == label), samples)
        places = np.linspace(0, len(members) - 1, min(times, len(members))).astype(np.int64)
        samples += members[places].tolist()
    return samples


def _draw(axis: Axes, record: Record, index: int, classes: tuple[str, ...]) -> None:
    pixels = decode(record.image)
    size = pixels.shape[:2]
    windows = _windows(index, size, len(_COLORS))
    axis.imshow(np.where(_is_read(record.image, windows[0], size)[..., None], pixels, pixels // 2))
    axis.set_anchor("S")
    if isinstance(record.target, Boxes):
        for (x1, y1, x2, y2), label in zip(record.target.boxes, record.target.labels):
            axis.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, color="white", linestyle="--"))
            axis.text(x1, y1, _short(classes[label], 16), color="white", size=7, va="bottom", parse_math=False)
    for (top, left, height, width), color in reversed(list(zip(windows, _COLORS))):
        axis.add_patch(Rectangle((left - 0.5, top - 0.5), width, height, fill=False, color=color, linewidth=2))
    names = ", ".join(classes[label] for label in sorted(set(labels_of(record.target))))
    for text, color, below in ((names, "black", 4), (record.key, "gray", 16)):
        axis.annotate(
            _short(text),
            (0.5, 0),
            (0, -below),
            xycoords="axes fraction",
            textcoords="offset points",
            ha="center",
            va="top",
            size=8.5,
            color=color,
            parse_math=False,
        )


def _is_read(data: bytes, window: Window, size: tuple[int, int]) -> np.ndarray:
    """Which pixels decoding ``window`` decodes, bool [H, W]."""
    part = window_jpeg(np.frombuffer(data, np.uint8), window)
    if part is None:
        return np.ones(size, bool)
    read = np.zeros(size, bool)
    header = read_header(part.data.tobytes())
    assert header is not None
    for row in range(header.height):
        left = window[1] - part.lefts[0 if part.aligned else row // 8]
        read[window[0] - part.top + row, max(left, 0) : left + header.width] = True
    return read


def _short(text: str, length: int = 34) -> str:
    text = printable(text)
    return text if len(text) <= length else f"{text[: length // 2 - 2]} ... {text[3 - length // 2 :]}"


if __name__ == "__main__":
    main()
