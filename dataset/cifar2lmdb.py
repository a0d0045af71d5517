"""Pack CIFAR-10, CIFAR-100 or other small images into LMDB shards, as raw pixels.

    python dataset/cifar2lmdb.py --image_path /data/cifar-100-python --output_path /data/cifar100

It reads the official pickles, the official binary files, or class folders, `train/<class>/` and `val/<class>/` or
`test/<class>/`, and writes `train` and `val`. Where the files are not at hand yet, fetch and unpack
https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz, or let torchvision do it:

    python -c "import torchvision; torchvision.datasets.CIFAR100('/data', download=True)"

The same command on finished splits verifies every checksum.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from dataset.jpeg.raw import encode_raw
from dataset.sources.cifar import Images, find_images_of, iterate
from dataset.store.index import INDEX, Index, describe
from dataset.store.reader import ShardReader
from dataset.store.record import Record
from dataset.store.writer import ShardWriter
from utils.console import exit_with_its_code, progress
from utils.errors import UsageError
from utils.files import lock, make_folder
from utils.text import counted, in_utf8

_LARGEST = 256  # pixels a side: larger images are for img2lmdb.py


@exit_with_its_code
def main() -> None:
    """Pack both splits."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image_path", type=Path, required=True, help="what holds the official files, or the folders")
    parser.add_argument("--output_path", type=Path, required=True, help="folder for the shards: train/ and val/ in it")
    parser.add_argument("--coarse", action="store_true", help="CIFAR-100: the 20 superclasses as labels")
    options = parser.parse_args()
    # Both are found before one is written.
    found = {split: find_images_of(options.image_path, split, coarse=options.coarse) for split in ("train", "val")}
    for split, images in found.items():
        pack_split(images, options.output_path / split, split)


def pack_split(images: Images, folder: Path, split: str) -> None:
    """Write one split as one shard, or verify the one that is there."""
    make_folder(folder, "--output_path")
    with lock(folder / ".lock", f"another packer is writing {folder}: wait for it"):
        if (folder / INDEX).exists():
            reader = ShardReader(folder)
            reader.verify()
            said = f"{counted(len(reader), 'image')}, {counted(len(reader.classes), 'class')}"
            print(f"{folder}: {said}, packed before, verified")
            return
        with ShardWriter(folder / "00000.lmdb", 8192 * len(images) + (1 << 20)) as writer:
            for key, pixels, label in progress(iterable=iterate(images), desc=f"packing {split}", total=len(images)):
                if max(pixels.shape) > _LARGEST:
                    size = f"{pixels.shape[1]} x {pixels.shape[0]} pixels"
                    raise UsageError(f"{split}/{key}: {size} are too many to store raw; img2lmdb.py packs such as JPEG")
                writer.add(Record(key, encode_raw(pixels), label), *pixels.shape[:2])
            records = writer.finish()
        shard = describe(folder / "00000.lmdb", records)
        Index(split, "single", tuple(map(in_utf8, images.classes)), records, (shard,), {"pixels": "raw"}).write(folder)
    size = f"{shard.bytes / 1e6:,.1f} MB"
    print(f"{folder}: {counted(records, 'image')}, {counted(len(images.classes), 'class')}, {size}, verified")


if __name__ == "__main__":
    main()
