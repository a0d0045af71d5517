"""Divide the classes of a packed split into parts, draw the graph of its labels, and read or write CPSD's files.

    python -m partition /data/coco/train --kind CGP --parts 5 --output runs/coco_cgp5.json
    python -m partition /data/coco/train --read idx_coocurrence5_0.json --output runs/coco_cgp5.json

CGP puts classes together that occur together, DGP those that do not, random any. Beside the partition goes a picture,
coco_cgp5.png; --numbered also writes the form of CPSD's authors. A config takes the file: configs/coco_cpsd.py
partition=runs/coco_cgp5.json.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from dataset.store.reader import ShardReader
from figures.label_graph import draw
from partition.graph import KINDS, affinity, cooccurrence, partition
from partition.parts import read_partition
from utils.console import exit_with_its_code
from utils.errors import UsageError
from utils.files import check_output, make_folder
from utils.text import counted, first_few, printable


@exit_with_its_code
def main() -> None:
    """Partition, write, draw."""
    flags = _parse()
    for option, path in (("--output", flags.output), ("--numbered", flags.numbered)):
        if path:
            make_folder(path.parent, option)
            check_output(path, option)
    reader = ShardReader(flags.split)
    if reader.labels.ndim != 2:
        raise UsageError(f"{flags.split} has one class an image; partitions are of several")
    if flags.read:
        made = read_partition(flags.read, reader.classes)
    else:
        made = partition(reader.labels, reader.classes, flags.kind, flags.parts, flags.seed)
    made = replace(made, data=str(flags.split))
    made.write(flags.output)
    if flags.numbered:
        made.write_numbered(flags.numbered, reader.classes)
    together, counts = cooccurrence(reader.labels)
    for number, part in enumerate(made.parts):
        print(f"part {number}, {counted(len(part), 'class')}: {first_few([*map(printable, part)])}")
    picture = flags.output.with_suffix(".png")
    draw(affinity(together, counts, "CGP"), counts, reader.classes, made.parts, picture)
    print(f"{flags.output}, {picture}")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("split", type=Path, help="folder of the packed training split")
    add("--kind", choices=KINDS, default="CGP", help="default: CGP")
    add("--parts", type=int, default=5, help="how many (default: 5)")
    add("--seed", type=int, default=0, help="of the draws (default: 0)")
    add("--read", type=Path, metavar="FILE", help="take the parts of this file, ours or CPSD's")
    add("--output", type=Path, required=True, metavar="FILE.json", help="the partition; FILE.png is its picture")
    add("--numbered", type=Path, metavar="FILE.json", help="also write the form of CPSD's authors")
    flags = parser.parse_args()
    if flags.output.suffix != ".json":
        raise UsageError(f"--output {flags.output}: name a .json file")
    if not 0 <= flags.seed < 2**30:
        raise UsageError(f"--seed {flags.seed}: from 0 to {2**30 - 1}")
    if flags.numbered and (flags.numbered.suffix != ".json" or flags.numbered == flags.output):
        raise UsageError(f"--numbered {flags.numbered}: name another .json file")
    return flags


if __name__ == "__main__":
    main()
