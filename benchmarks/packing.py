"""Images/s of packing on one core from a warm cache, and the bytes that come out.

    python -m benchmarks.packing [--data /data/imagenet/train] [--copies 10]

`dataset/img2lmdb.py --num_workers 1` as its users call it, beside the re-encoding packer of WSLD's design (PIL, JPEG
quality 95, one transaction). The time of packing a single image, which is that of starting, is taken off.
"""

from __future__ import annotations

import argparse
import io
import itertools
import shutil
import time
from pathlib import Path
from statistics import median

import lmdb
import msgpack
from PIL import Image

from benchmarks.common import cores, parsed, parser, run, show
from dataset.store.reader import ShardReader
from utils.console import exit_with_its_code, progress

PACKERS = {
    "WSLD's design: re-encoded by PIL": None,
    "Limbeck, tiled": [],
    "Limbeck, untiled": ["--no_tiles"],
    "Limbeck, untiled, unchecked": ["--no_tiles", "--no_check"],
}


@exit_with_its_code
def main() -> None:
    """Pack in turn, print."""
    made = parser(__doc__, "benchmark_packing")
    made.add_argument("--copies", type=int, default=10, help="times that each photo is packed")
    options = parsed(made)
    shutil.rmtree(options.work, ignore_errors=True)
    many, one = (copy_photos(options, images) for images in (None, 1))
    rates: dict[str, list[float]] = {name: [] for name in PACKERS}
    sizes: dict[str, int] = {}
    with cores(1):
        for _ in progress(iterable=range(options.rounds), desc="packing", unit="round"):
            for name, arguments in PACKERS.items():
                seconds = [timed(folder, arguments) for folder in (many, one)]
                rates[name].append((count(many) - 1) / (seconds[0] - seconds[1]))
                sizes[name] = stored_bytes(many, tiled=arguments is not None)
    base = median(rates["WSLD's design: re-encoded by PIL"])
    files = sum(path.stat().st_size for path in many.glob("images/train/*/*"))
    for name, values in rates.items():
        row = {"packer": name, "images_per_second": round(median(values)), "ratio": round(median(values) / base, 2)}
        show("packing", {**row, "image_bytes_to_files": round(sizes[name] / files, 4)})


def copy_photos(options: argparse.Namespace, images: int | None) -> Path:
    """A folder with lists of the first ``images`` photos, each as often as --copies says."""
    work = options.work / ("all" if images is None else str(images))
    files = sorted(path for path in options.data.glob("*/*") if path.is_file())
    for path, copy in itertools.islice(itertools.product(files, range(options.copies)), images):
        photo = work / "images" / "train" / path.parent.name / f"{copy}_{path.name}"
        photo.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, photo)  # a link to another file would count once
        path.read_bytes()  # into the page cache
    run("dataset/mk_img_list.py", "--image_path", str(work / "images"), "--output_path", str(work / "lists"))
    return work


def timed(work: Path, arguments: list[str] | None) -> float:
    """Seconds of packing the photos of ``work``; without ``arguments``, with WSLD's design."""
    for folder in ("lmdb", "wsld"):
        shutil.rmtree(work / folder, ignore_errors=True)
    start = time.perf_counter()
    if arguments is None:
        reencode(work)
    else:
        paths = ["--image_path", work / "images", "--list_path", work / "lists", "--output_path", work / "lmdb"]
        run("dataset/img2lmdb.py", *map(str, paths), "--split", "train", "--num_workers", "1", *arguments)
    return time.perf_counter() - start


def reencode(work: Path) -> None:
    """Every image decoded, encoded again and put beside its label."""
    with lmdb.open(str(work / "wsld"), map_size=1 << 40) as environment, environment.begin(write=True) as out:
        for line in (work / "lists" / "train_list.txt").read_text().splitlines():
            name, label = line.rsplit(" ", 1)
            file = io.BytesIO()
            Image.open(work / "images" / "train" / name).convert("RGB").save(file, "JPEG", quality=95)
            out.put(name.encode(), msgpack.packb(file.getvalue() + int(label).to_bytes(2, "little")))


def stored_bytes(work: Path, *, tiled: bool) -> int:
    """Bytes of the JPEG files in the pack."""
    if tiled:
        reader = ShardReader(work / "lmdb" / "train")
        return sum(len(reader.read(index).image) for index in range(len(reader)))
    with lmdb.open(str(work / "wsld"), readonly=True, lock=False) as environment, environment.begin() as transaction:
        return sum(len(msgpack.unpackb(value)) - 2 for value in transaction.cursor().iternext(keys=False))


def count(work: Path) -> int:
    """Lines of the list."""
    return len((work / "lists" / "train_list.txt").read_text().splitlines())


if __name__ == "__main__":
    main()
