"""What every packing tool can do, and its flags."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


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
