"""Pack the images of a list into LMDB shards.

    python dataset/img2lmdb.py --image_path /data/imagenet --list_path /data/lists --output_path /data/lmdb \\
        --split train

JPEG files are rewritten without loss so that windows of them can be decoded alone (every pixel, EXIF and ICC stay; see
docs/format.md), or stored as they are with --no_tiles; --image_size asks for smaller images. Files that are something
else inside (PNG, CMYK) are converted once and named in the report. A kill loses at most the shards in hand: the same
command goes on from there, and on a finished split it verifies every checksum. Many machines can share the work on one
output folder with --part 1/4 ... --part 4/4; the command without --part then joins the shards.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import stat
import sys
from collections.abc import Callable, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from dataset.jpeg.fit import Packing, fit
from dataset.jpeg.header import BadImage
from dataset.jpeg.images import read_image
from dataset.sources.imagenet import CLASSES, Entry, read_classes, read_list
from dataset.store.index import Index, Shard, columns_path, describe
from dataset.store.pool import advance, work_through
from dataset.store.reader import ShardReader
from dataset.store.record import Record
from dataset.store.writer import ShardWriter
from utils.console import exit_with_its_code, progress
from utils.errors import DataError, UsageError
from utils.files import lock, make_folder, write_atomically
from utils.text import counted, in_utf8, printable, spelled

REPORT = "report.txt"
_PLAN = "plan.json"
_LEFT_OUT = "left out, "


@dataclass(frozen=True)
class Job:
    """One shard to write."""

    path: Path
    image_folder: Path
    entries: list[Entry]
    packing: Packing
    map_bytes: int


@dataclass(frozen=True)
class Outcome:
    """What became of a shard: its row of the index, or None when bad images kept it from being written."""

    shard: Shard | None
    remarks: list[str]
    bad: list[str]


@exit_with_its_code
def main() -> None:
    """Pack, verify and describe one split."""
    options = _parse()
    folder = options.output_path / (f"{options.split}_{options.image_size}" if options.image_size else options.split)
    packing = Packing(
        options.image_size,
        options.longest_side,
        options.quality,
        options.skip_bad,
        tiles=not options.no_tiles,
        check=not options.no_check,
        shuffle=options.shuffle,
    )
    class_file = options.list_path / CLASSES
    classes = read_classes(class_file) if class_file.exists() else None
    entries = read_list(options.list_path / f"{options.split}_list.txt", classes)
    classes = classes or _classes_of(entries)
    if packing.shuffle:
        order = np.random.Generator(np.random.Philox(0)).permutation(len(entries))  # the same for every --part
        entries = [entries[position] for position in order]

    make_folder(folder, "--output_path")
    busy = f"another packer is writing {folder}: wait for it, or give each its --part"
    with lock(folder / ".lock", busy, shared=options.part is not None):
        jobs = _plan(folder, options.image_path / options.split, entries, packing, options.shard_mb)
        _check_free_space(folder, jobs)
        mine = jobs if options.part is None else jobs[options.part[0] - 1 :: options.part[1]]
        outcomes = _pack_all(mine, options.num_workers)
        joined = options.part is None
        if _finish(folder, outcomes, options.split, classes, packing, images=len(entries), joined=joined):
            print(
                f"{folder}: {len(mine)} of {counted(len(jobs), 'shard')}; run the command without --part to join them"
            )


def _finish(
    folder: Path,
    outcomes: list[Outcome],
    split: str,
    classes: tuple[str, ...],
    packing: Packing,
    *,
    images: int,
    joined: bool,
) -> bool:
    """Write the report and the index; True when other parts are still to come."""
    bad = [line for outcome in outcomes for line in outcome.bad]
    remarks = [line for outcome in outcomes for line in outcome.remarks]
    for line in bad + remarks:
        print(line, file=sys.stderr)
    if bad:
        raise DataError(
            f"{counted(len(bad), 'image')} cannot be packed (named above). Mend or replace them and run the same "
            "command again, or leave them out with --skip_bad; finished shards are kept"
        )
    if not joined:
        return True
    shards = tuple(outcome.shard for outcome in outcomes if outcome.shard is not None)
    index = Index(
        split=split,
        target="single",
        classes=tuple(map(in_utf8, classes)),
        records=sum(shard.records for shard in shards),
        shards=shards,
        packing=vars(packing),
    )
    if index.records == 0:
        raise DataError(f"{folder}: not one image could be packed")
    left_out = sum(f": {_LEFT_OUT}" in line for line in remarks)
    if index.records + left_out != images:
        held = f"{index.records + left_out:,} of {counted(images, 'image')}"
        raise DataError(f"{folder}: {held} are in its shards, so {_PLAN} is damaged: delete the folder and pack again")
    text = "".join(f"{line}\n" for line in remarks)
    write_atomically(folder / REPORT, text.encode("utf-8", "backslashreplace"))
    index.write(folder)
    reader = ShardReader(folder)
    size = sum(shard.bytes for shard in shards)
    print(
        f"{folder}: {counted(len(reader), 'image')}, {counted(len(classes), 'class')}, "
        f"{counted(len(shards), 'shard')}, {size / 1e6:,.1f} MB, verified; "
        f"{counted(len(remarks), 'remark')} in {folder / REPORT}"
    )
    return False


def _plan(folder: Path, image_folder: Path, entries: list[Entry], packing: Packing, shard_mb: int) -> list[Job]:
    """Deal the list into shards of about ``shard_mb`` of source bytes, the same way every time."""
    sizes, missing = [], list[str]()
    for entry in progress(iterable=entries, desc="looking at files", unit="img"):
        path = image_folder / entry.path
        try:
            status = path.stat()
            sizes.append(status.st_size)
            if not stat.S_ISREG(status.st_mode):  # reading a pipe would wait for ever
                missing.append(f"{spelled(str(path))}: not a file")
        except OSError as error:
            missing.append(f"{spelled(str(path))}: {error.strerror}")
    if missing:
        shown = "\n  ".join(missing[:10])
        files = counted(len(missing), "file of the list is missing", "files of the list are missing")
        raise UsageError(f"{files} or cannot be read, such as\n  {shown}\nnothing was written")

    ends = _agreed_ends(folder, entries, packing, shard_mb, _deal(sizes, shard_mb << 20))
    jobs: list[Job] = []
    for start, end in zip([0, *ends], ends):
        # Every value takes whole 4 KiB pages; the map grows if that is not enough.
        total = sum(sizes[start:end])
        room = total + (total >> 4) + 8192 * (end - start) + (1 << 20)
        jobs.append(Job(folder / f"{len(jobs):05d}.lmdb", image_folder, entries[start:end], packing, room))
    return jobs


def _deal(sizes: list[int], most: int) -> list[int]:
    """Where each shard of at most ``most`` bytes ends."""
    ends: list[int] = []
    total = 0
    for position, size in enumerate(sizes):
        if total and total + size > most:
            ends.append(position)
            total = 0
        total += size
    return [*ends, len(sizes)]


def _agreed_ends(folder: Path, entries: list[Entry], packing: Packing, shard_mb: int, ends: list[int]) -> list[int]:
    """The ends that the first run on ``folder`` wrote down, for images mended since then have other sizes."""
    digest = hashlib.sha256(
        "".join(f"{entry.path} {entry.label}\n" for entry in entries).encode("utf-8", "surrogateescape")
    )
    # These may change between runs: they decide what happens to shards that are not written yet.
    settings = {key: value for key, value in vars(packing).items() if key not in ("skip_bad", "check")}
    plan = {"list_sha256": digest.hexdigest(), "shard_mb": shard_mb, **settings}
    path = folder / _PLAN
    with lock(folder / ".plan.lock", wait=True):  # parts that start at the same time
        before = _read_json(path, plan.keys() | {"ends"}) if path.exists() else {**plan, "ends": ends}
        if changed := ", ".join(key for key in plan if before.get(key) != plan[key]):
            raise UsageError(f"{folder} was begun with another {changed}: repeat that command, or delete the folder")
        if before["ends"] != sorted(set(before["ends"])) or before["ends"][-1:] != [len(entries)]:
            raise DataError(f"{path} is damaged: delete it and run the same command again")
        write_atomically(path, json.dumps(before).encode())
    return before["ends"]


def _read_json(path: Path, keys: Set[str]) -> dict[str, Any]:
    """An object with these keys and no others."""
    try:
        values = json.loads(path.read_bytes())
    except ValueError as error:
        raise DataError(f"{path} is damaged ({error}): delete it and run the same command again") from None
    if not isinstance(values, dict) or values.keys() != keys:
        raise DataError(f"{path} is damaged: delete it and run the same command again")
    return values


def _check_free_space(folder: Path, jobs: list[Job]) -> None:
    todo = [job for job in jobs if not job.path.exists() and job.packing.image_size is None]
    needed, free = sum(job.map_bytes for job in todo), shutil.disk_usage(folder).free
    if needed > free:
        raise DataError(f"{folder}: packing needs about {needed / 1e6:,.0f} MB, the disk has {free / 1e6:,.0f} MB free")


def _pack_all(jobs: list[Job], num_workers: int) -> list[Outcome]:
    with progress(total=sum(len(job.entries) for job in jobs), desc="packing", unit="img") as bar:
        return work_through(_pack_or_verify, jobs, num_workers, bar.update)


def _pack_or_verify(job: Job) -> Outcome:
    """Write a shard, or check the one that an earlier run finished."""
    remarks_path, lock_path = job.path.with_suffix(".remarks.json"), job.path.with_suffix(".lock")
    with lock(lock_path, f"another packer is writing {job.path}"):
        if job.path.exists() and columns_path(job.path).exists() and remarks_path.exists():
            saved = _read_json(remarks_path, {"shard", "remarks"})
            outcome = Outcome(describe(job.path, saved["shard"].get("records")), saved["remarks"], [])
            if vars(outcome.shard) != saved["shard"]:
                raise DataError(f"{job.path} is not what was packed: delete it and run the same command again")
            advance(len(job.entries))
        else:
            outcome = _pack(job)
            if outcome.shard is not None:
                saved = {"shard": vars(outcome.shard), "remarks": outcome.remarks}
                write_atomically(remarks_path, json.dumps(saved).encode())
        if outcome.shard is not None:
            lock_path.unlink(missing_ok=True)
    return outcome


def _pack(job: Job) -> Outcome:
    remarks: list[str] = []
    bad: list[str] = []
    with ShardWriter(job.path, job.map_bytes) as writer:
        for entry in job.entries:
            name = printable(str(job.image_folder / entry.path))
            advance(1, name)
            try:
                image, height, width, remark = _load(job.image_folder / entry.path, job.packing)
            except (BadImage, OSError) as error:
                (remarks if job.packing.skip_bad else bad).append(
                    f"{name}: {_LEFT_OUT if job.packing.skip_bad else ''}{error}"
                )
                continue
            if remark:
                remarks.append(f"{name}: {remark}")
            if not bad:
                writer.add(Record(entry.path, image, entry.label), height, width)
        advance(0)
        if bad:
            return Outcome(None, remarks, bad)
        records = writer.finish()
    return Outcome(describe(job.path, records), remarks, [])


def _load(path: Path, packing: Packing) -> tuple[bytes, int, int, str | None]:
    """Bytes to store, height, width, remark."""
    return fit(read_image(path), packing)


def _classes_of(entries: list[Entry]) -> tuple[str, ...]:
    """Class names of a list that came without classes.txt: the one folder of each label, or the label itself."""
    folders: dict[int, set[str]] = {}
    for entry in entries:
        folders.setdefault(entry.label, set()).add(entry.path.split("/")[0] if "/" in entry.path else "")
    named = {label: min(names) for label, names in folders.items() if len(names) == 1}
    return tuple(named.get(label) or str(label) for label in range(max(folders) + 1))


def _number(least: int, most: int) -> Callable[[str], int]:
    """A whole number in these limits."""

    def number(text: str) -> int:
        if not re.fullmatch("[0-9]{1,9}", text) or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"expected a whole number from {least} to {most}")
        return int(text)

    return number


def _part(text: str) -> tuple[int, int]:
    number, _, count = text.partition("/")
    if not (number.isdigit() and count.isdigit() and 1 <= int(number) <= int(count)):
        raise argparse.ArgumentTypeError("expected i/n with 1 <= i <= n, such as 2/4")
    return int(number), int(count)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--image_path", type=Path, required=True, help="folder that holds train/ and val/")
    add("--list_path", type=Path, required=True, help="folder that mk_img_list.py wrote the lists to")
    add("--output_path", type=Path, required=True, help="folder for the shards: OUTPUT_PATH/SPLIT/")
    add("--split", required=True, help="train or val: reads LIST_PATH/SPLIT_list.txt and IMAGE_PATH/SPLIT/")
    add(
        "--image_size",
        type=_number(1, 65500),
        help="shrink to this short side in pixels and re-encode (default: keep the bytes)",
    )
    add("--longest_side", action="store_true", help="--image_size is the longest side")
    add("--quality", type=_number(1, 100), default=95, help="JPEG quality of shrunk images (default: 95)")
    add("--no_tiles", action="store_true", help="store JPEG files byte for byte; windows of them decode more slowly")
    add(
        "--no_check",
        action="store_true",
        help="do not look for damage in every image, nor compare its pixels with what is stored",
    )
    add("--shuffle", action="store_true", help="pack in random order, so that data.order=blocks mixes classes")
    add("--skip_bad", action="store_true", help="leave unreadable images out, and name them in the report")
    add("--part", type=_part, metavar="i/n", help="write only every n-th shard, on one of n machines")
    add(
        "--shard_mb",
        type=_number(0, 1 << 20),
        default=384,
        help="source megabytes a shard (default: 384), 0 for a shard an image",
    )
    add("--num_workers", type=_number(1, 1024), default=os.cpu_count(), help="processes (default: one a core)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
