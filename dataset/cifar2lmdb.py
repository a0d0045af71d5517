"""Pack CIFAR-10, CIFAR-100 or other small images into LMDB shards, as raw pixels.

    python dataset/cifar2lmdb.py --image_path /data/cifar-100-python --output_path /data/cifar100

It reads the official pickles, the official binary files, or class folders, `train/<class>/` and `val/<class>/` or
`test/<class>/`, and writes `train` and `val`. Where the files are not at hand yet, fetch and unpack
https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz, or let torchvision do it:

    python -c "import torchvision; torchvision.datasets.CIFAR100('/data', download=True)"

A kill loses at most unfinished shards: the same command resumes from there, and on finished splits it verifies every
checksum.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from utils.starting import begin

    begin()

from dataset.sources.cifar import find_cifar
from dataset.store.options import add_flags, options_of
from dataset.store.packing import pack
from dataset.store.storage import AsPixels
from utils.console import resumable


@resumable
def main() -> None:
    """Pack both splits."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image_path", type=Path, required=True, help="what holds the official files, or the folders")
    parser.add_argument("--coarse", action="store_true", help="CIFAR-100: the 20 superclasses as labels")
    add_flags(parser)
    flags = parser.parse_args()
    # Both are found before one is written.
    for source in [find_cifar(flags.image_path, split, coarse=flags.coarse) for split in ("train", "val")]:
        pack(source, AsPixels(), flags.output_path / source.split, options_of(flags))


if __name__ == "__main__":
    main()
