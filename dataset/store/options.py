"""What every packing tool can do, and its flags."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dataset.jpeg.fit import Fitting
from utils.errors import UsageError


@dataclass(frozen=True)
class Options:
    """What every packing tool can do.

    Attributes:
        num_workers: processes.
        shard_mb: source megabytes (2^20 bytes) a shard; 0 for a shard an image.
        shuffle: pack in random order, the same every time.
        skip_bad: leave unreadable images out.
        part: (i, n) to write only shards i, i + n, ..., from 1.
    """

    num_workers: int = 1
    shard_mb: int = 384
    shuffle: bool = False
    skip_bad: bool = False
    part: tuple[int, int] | None = None


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of `Options`, and --output_path."""
    add = parser.add_argument
    add("--output_path", type=Path, required=True, help="folder for the shards: OUTPUT_PATH/SPLIT/")
    add("--shuffle", action="store_true", help="pack in random order, so that data.order=blocks mixes classes")
    add("--skip_bad", action="store_true", help="leave unreadable images out, and name them in the report")
    add("--part", type=_part, metavar="i/n", help="write only every n-th shard, on one of n machines")
    add(
        "--shard_mb",
        type=number(0, 1 << 20),
        default=Options.shard_mb,
        help=f"source megabytes a shard (default: {Options.shard_mb}), 0 for a shard an image",
    )
    add("--num_workers", type=number(1, 1024), default=os.cpu_count(), help="processes (default: one a core)")


def options_of(flags: argparse.Namespace) -> Options:
    """The values of the flags."""
    return Options(flags.num_workers, flags.shard_mb, flags.shuffle, flags.skip_bad, flags.part)


def photo_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of `Fitting`, for tools that store photos."""
    add = parser.add_argument
    add(
        "--image_size",
        type=number(1, 65500),
        help="shrink to this short side in pixels and re-encode (default: keep the bytes)",
    )
    add("--longest_side", action="store_true", help="--image_size is the longest side")
    add("--quality", type=number(1, 100), default=95, help="JPEG quality of shrunk images (default: 95)")
    add("--no_tiles", action="store_true", help="store JPEG files byte for byte; windows of them decode more slowly")
    add(
        "--no_check",
        action="store_true",
        help="do not search every image for damage, nor compare its pixels with what is stored",
    )


def fitting_of(flags: argparse.Namespace) -> Fitting:
    """The values of the flags of `photo_flags`."""
    return Fitting(
        flags.image_size, flags.longest_side, flags.quality, tiles=not flags.no_tiles, check=not flags.no_check
    )


def split_folder(flags: argparse.Namespace, split: str) -> Path:
    """Where a split of photos goes: OUTPUT_PATH/SPLIT, or OUTPUT_PATH/SPLIT_SIZE where they are shrunk.

    Raises:
        UsageError: that is no folder of its own directly below OUTPUT_PATH.
    """
    if split in ("", ".", "..") or "/" in split:
        raise UsageError(f"--split {split!r}: expected a name, such as train, of a folder below --output_path")
    return Path(flags.output_path) / (f"{split}_{flags.image_size}" if flags.image_size else split)


def number(least: int, most: int) -> Callable[[str], int]:
    """A whole number in these limits, as a command line's ``type``."""

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
