"""Mutated files for the codec's C functions, compiled with sanitizers: no access beyond memory, no overflow.

    python -m benchmarks.fuzz_codec --mutations 1000000

A C compiler (CC, or cc) builds dataset/jpeg/src and fuzz_codec.c with Address- and UndefinedBehaviorSanitizer. Each
mutation is a sound JPEG with bits, bytes, markers, segments and header fields changed; it is parsed, windows and views
of it are decoded, it is packed, read back and decoded again. Results may not depend on what memory held before. A
mutation that did harm is kept below --work. 10^6 take about 15 minutes of a core.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import struct
import subprocess
import tempfile
from pathlib import Path

from benchmarks.fuzz import sources
from dataset.jpeg.header import SOI
from dataset.jpeg.sources import SOURCES
from utils.console import exit_with_its_code, progress
from utils.errors import DataError, UsageError

HARNESS = Path(__file__).with_suffix(".c")
SANITIZERS = "-fsanitize=address,undefined,float-divide-by-zero,float-cast-overflow"
_FLAGS = ["-std=gnu11", "-O1", "-g", "-ffp-contract=off", "-Wno-psabi", SANITIZERS, "-fno-sanitize-recover=all"]
_PIECE = 10_000  # mutations a process


@exit_with_its_code
def main() -> None:
    """Build, run, and say which mutations ended a process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mutations", type=int, default=100_000)
    parser.add_argument("--first", type=int, default=0, help="number of the first")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, default=Path("runs/fuzz"), help="folder for mutations that did harm")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    end = options.first + options.mutations
    faults: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        program, seeds = build(Path(folder)), write_seeds(Path(folder))
        for start in progress(iterable=range(options.first, end, _PIECE), desc=f"pieces of {_PIECE} mutations"):
            faults += run_piece(
                [str(program), str(seeds), str(options.seed)], start, min(start + _PIECE, end), options.work
            )
    print(f"{options.mutations} mutations: {len(faults)} faults")
    if faults:
        raise DataError("\n  ".join(["the codec is not safe:", *faults]))


def compiler() -> list[str]:
    """The words that call the C compiler.

    Raises:
        UsageError: there is none.
    """
    words = shlex.split(os.environ.get("CC", "cc"))
    if shutil.which(words[0]) is None:
        raise UsageError(f"no C compiler is called {words[0]}: install gcc or clang, or set CC")
    return words


def build(folder: Path) -> Path:
    """The program, in ``folder``.

    Raises:
        UsageError: the compiler is missing, or has no sanitizers.
    """
    program = folder / "fuzz"
    files = [HARNESS, *(path for path in sorted(SOURCES.glob("*.c")) if path.name != "arena.c")]
    words = [*compiler(), *_FLAGS, '-DSOURCES="fuzz"', f"-I{SOURCES}", *map(str, files), "-o", str(program), "-lm"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UsageError(f"the codec does not compile with sanitizers:\n{done.stderr}")
    return program


def write_seeds(folder: Path) -> Path:
    """The sound JPEGs, as the program reads them."""
    path = folder / "seeds"
    path.write_bytes(b"".join(struct.pack("=q", len(data)) + data for data in sources() if data[:2] == SOI))
    return path


def run_piece(words: list[str], start: int, end: int, work: Path) -> list[str]:
    """Read mutations ``start`` to ``end``; a line for each that ended the process."""
    faults = []
    while start < end:
        done = subprocess.run([*words, str(start), str(end)], stderr=subprocess.PIPE, text=True, check=False)
        if not done.returncode:
            break
        *_, number, report = re.split(r"^mutation (\d+)\n", done.stderr, flags=re.MULTILINE)
        subprocess.run([*words, number, str(int(number) + 1), str(work / f"{number}.jpg")], check=True)
        (work / f"{number}.txt").write_text(report)
        faults.append(f"mutation {number}: {next((line for line in report.splitlines() if line), 'no report')}")
        start = int(number) + 1
    return faults


if __name__ == "__main__":
    main()
