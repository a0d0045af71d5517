"""The packing engine: from a source to a finished split, by many processes or machines.

A kill loses at most unfinished shards: packing again resumes from there, and on a finished split verifies every
checksum. The split is the same bytes however the work was divided.
"""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from dataset.jpeg.header import BadImage
from dataset.sources.source import Source
from dataset.store.index import INDEX, REPORT, Index, Shard, columns_path, describe
from dataset.store.options import Options
from dataset.store.plan import LIST, PLAN, agreed_ends, check_settings, deal, read_json
from dataset.store.pool import advance, work_through
from dataset.store.reader import ShardReader
from dataset.store.record import Boxes
from dataset.store.storage import Storage, Stored
from dataset.store.writer import ShardWriter
from utils.console import progress
from utils.errors import DataError
from utils.files import lock, make_folder, write_atomically
from utils.text import counted, in_utf8

_ROUNDED = 1 + 1e-6  # times a side: by as much the corners of a resized box may be beyond it


@dataclass(frozen=True)
class Job:
    """One shard to write."""

    path: Path
    source: Source
    storage: Storage
    map_bytes: int
    skip_bad: bool


@dataclass(frozen=True)
class Outcome:
    """What became of a shard: its row of the index, or None when bad images kept it from being written."""

    shard: Shard | None
    remarks: list[str]
    left_out: int  # images
    bad: list[str]


def pack(source: Source, storage: Storage, folder: Path, options: Options) -> None:
    """Write, verify and describe one split in ``folder``, or one part of its shards.

    Raises:
        UsageError: images are missing, the folder was begun with other settings, another packer writes it, or it
            cannot be written to.
        DataError: images are damaged, the disk is full, or what was written before has changed.
    """
    if options.shuffle:
        order = np.random.Generator(np.random.Philox(0)).permutation(len(source))  # the same for every --part
        source = source.take(order.tolist())
    make_folder(folder, "--output_path")
    busy = f"another packer is writing {folder}: wait for it, or give each its --part"
    with lock(folder / ".lock", busy, shared=options.part is not None):
        if (folder / INDEX).exists() and not (folder / PLAN).exists():  # the only shard of a packer without plans
            _check_as_described(folder, storage)
            ShardReader(folder).verify()
            print(f"{folder}: packed before, verified")
            return
        jobs = _plan(source, storage, folder, options)
        _check_free_space(folder, jobs)
        mine = jobs if options.part is None else jobs[options.part[0] - 1 :: options.part[1]]
        with progress(total=sum(len(job.source) for job in mine), desc="packing", unit="img") as bar:
            outcomes = work_through(_pack_or_verify, mine, options.num_workers, bar.update)
        _tell(outcomes)
        if options.part is None:
            skips = options.skip_bad or any(outcome.left_out for outcome in outcomes)  # by an earlier command
            described = storage.described(shuffle=options.shuffle, skip_bad=skips)
            _join(folder, outcomes, source, described)
        else:
            shards = counted(len(jobs), "shard")
            print(f"{folder}: {len(mine)} of {shards}; run the command without --part to join them")


def _plan(source: Source, storage: Storage, folder: Path, options: Options) -> list[Job]:
    """Deal the images into shards of about ``shard_mb`` of source bytes, the same way every time."""
    sizes = source.sizes()
    settings = {LIST: source.digest(), "shard_mb": options.shard_mb, **storage.settings()}
    settings["shuffle"] = options.shuffle
    jobs: list[Job] = []
    for start, end in pairwise([0, *agreed_ends(folder, settings, deal(sizes, options.shard_mb << 20))]):
        map_bytes = storage.map_bytes(sum(sizes[start:end]), end - start)
        path = folder / f"{len(jobs):05d}.lmdb"
        jobs.append(Job(path, source.take(range(start, end)), storage, map_bytes, options.skip_bad))
    return jobs


def _check_as_described(folder: Path, storage: Storage) -> None:
    """Compare with the index the settings that it has, for older packers wrote fewer."""
    packing, settings = Index.read(folder).packing, storage.settings()
    before = {**settings, **{key: value for key, value in packing.items() if key in settings}}
    other_kind = bool(packing) and not packing.keys() & settings.keys()
    check_settings(folder, packing if other_kind else before, settings)


def _check_free_space(folder: Path, jobs: list[Job]) -> None:
    todo = [job for job in jobs if not job.path.exists() and job.storage.keeps_size]
    needed, free = sum(job.map_bytes for job in todo), shutil.disk_usage(folder).free
    if needed > free:
        raise DataError(f"{folder}: packing needs about {needed / 1e6:,.0f} MB, the disk has {free / 1e6:,.0f} MB free")


def _tell(outcomes: list[Outcome]) -> None:
    """Print what is remarkable.

    Raises:
        DataError: images cannot be packed.
    """
    bad = [line for outcome in outcomes for line in outcome.bad]
    for line in [*bad, *(line for outcome in outcomes for line in outcome.remarks)]:
        print(line, file=sys.stderr)
    if bad:
        raise DataError(
            f"{counted(len(bad), 'image')} cannot be packed (named above). Mend or replace them and run the same "
            "command again, or leave them out with --skip_bad; finished shards are kept"
        )


def _join(folder: Path, outcomes: list[Outcome], source: Source, described: dict[str, object]) -> None:
    """Write the report and the index of a whole split."""
    shards = tuple(outcome.shard for outcome in outcomes if outcome.shard is not None)
    records = sum(shard.records for shard in shards)
    if records == 0:
        raise DataError(f"{folder}: not one image could be packed")
    held = records + sum(outcome.left_out for outcome in outcomes)
    if held != len(source):
        of = f"{held:,} of {counted(len(source), 'image')}"
        raise DataError(f"{folder}: {of} are in its shards, so {PLAN} is damaged: delete the folder and pack again")
    remarks = [f"{line}\n" for outcome in outcomes for line in outcome.remarks]
    write_atomically(folder / REPORT, "".join(remarks).encode("utf-8", "backslashreplace"))
    classes = tuple(map(in_utf8, source.classes))
    Index(source.split, source.target, classes, records, shards, described).write(folder)
    reader = ShardReader(folder)
    size = sum(shard.bytes for shard in shards)
    print(
        f"{folder}: {counted(len(reader), 'image')}, {counted(len(classes), 'class')}, "
        f"{counted(len(shards), 'shard')}, {size / 1e6:,.1f} MB, verified; "
        f"{counted(len(remarks), 'remark')} in {folder / REPORT}"
    )


def _pack_or_verify(job: Job) -> Outcome:
    """Write a shard, or check the one that an earlier run finished."""
    lock_path = job.path.with_suffix(".lock")
    with lock(lock_path, f"another packer is writing {job.path}"):
        saved = _remarks_path(job.path)
        if job.path.exists() and columns_path(job.path).exists() and saved.exists():
            outcome = _verify(job)
            advance(len(job.source))
        else:
            outcome = _pack(job)
            if outcome.shard is not None:
                left_out = {"left_out": outcome.left_out} if outcome.left_out else {}
                values = {"shard": vars(outcome.shard), "remarks": outcome.remarks, **left_out}
                values |= {"images": images} if (images := job.source.images()) else {}
                write_atomically(saved, json.dumps(values).encode())
        if outcome.shard is not None:
            lock_path.unlink(missing_ok=True)
    return outcome


def _verify(job: Job) -> Outcome:
    saved = read_json(_remarks_path(job.path), ("shard", "remarks"), ("left_out", "images"))
    shard = describe(job.path, saved["shard"].get("records"))
    if vars(shard) != saved["shard"]:
        raise DataError(f"{job.path} is not what was packed: delete it and run the same command again")
    if saved.get("images", now := job.source.images()) != now:
        raise DataError(f"{job.path} was packed of other images: delete it and run the same command again")
    remarks, left_out = saved["remarks"], saved.get("left_out", 0)
    if "left_out" not in saved and shard.records < len(job.source):  # packers before this one wrote no number
        left_out = sum(": left out, " in line for line in remarks)
    return Outcome(shard, remarks, left_out, [])


def _pack(job: Job) -> Outcome:
    remarks, bad = list[str](), list[str]()
    left_out = 0
    with ShardWriter(job.path, job.map_bytes) as writer:
        for number in range(len(job.source)):
            name = job.source.name(number)
            advance(1, name)
            try:
                stored = job.storage.store(job.source.record(number))
                _check_boxes(stored)
            except (BadImage, OSError) as error:
                if job.skip_bad:
                    left_out += 1
                    remarks.append(f"{name}: left out, {error}")
                else:
                    bad.append(f"{name}: {error}")
                continue
            if stored.remark:
                remarks.append(f"{name}: {stored.remark}")
            if not bad:
                writer.add(stored.record, stored.height, stored.width)
        advance(0)
        if bad:
            return Outcome(None, remarks, left_out, bad)
        records = writer.finish()
    return Outcome(describe(job.path, records), remarks, left_out, [])


def _check_boxes(stored: Stored) -> None:
    """Raises BadImage where a box reaches out of the image."""
    target, width, height = stored.record.target, stored.width, stored.height
    for box in target.boxes if isinstance(target, Boxes) else ():
        x1, y1, x2, y2 = box
        if not (x1 >= 0 and y1 >= 0 and x2 <= width * _ROUNDED and y2 <= height * _ROUNDED):
            where = f"outside of its {width} x {height} pixels"
            raise BadImage(f"a box reaches from {x1:g}, {y1:g} to {x2:g}, {y2:g}, which is {where}")


def _remarks_path(shard: Path) -> Path:
    """`00000.remarks.json` for `00000.lmdb`: its row of the index, and its lines of the report."""
    return shard.with_suffix(".remarks.json")
