"""Pack the images of a list into LMDB shards.

    python dataset/img2lmdb.py --image_path /data/imagenet --list_path /data/lists --output_path /data/lmdb \\
        --split train

JPEG files are rewritten without loss so that windows of them can be decoded alone (every pixel, EXIF and ICC stay; see
docs/format.md), or stored as they are with --no_tiles; --image_size asks for smaller images. Files that are something
else inside (PNG, CMYK) are converted once and named in the report. A kill loses at most unfinished shards: the same
command resumes from there, and on a finished split it verifies every checksum. Many machines can share the work on one
output folder with --part 1/4 ... --part 4/4; the command without --part then joins the shards.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from dataset.jpeg.fit import Fitting
from dataset.sources.files import find_listed
from dataset.store.options import add_flags, number, options_of
from dataset.store.packing import pack
from dataset.store.storage import AsJpeg
from utils.console import exit_with_its_code


@exit_with_its_code
def main() -> None:
    """Pack, verify and describe one split."""
    flags = _parse()
    fitting = Fitting(
        flags.image_size, flags.longest_side, flags.quality, tiles=not flags.no_tiles, check=not flags.no_check
    )
    source = find_listed(flags.image_path, flags.list_path, flags.split)
    name = f"{flags.split}_{flags.image_size}" if flags.image_size else flags.split
    pack(source, AsJpeg(fitting), flags.output_path / name, options_of(flags))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--image_path", type=Path, required=True, help="folder that holds train/ and val/")
    add("--list_path", type=Path, required=True, help="folder that mk_img_list.py wrote the lists to")
    add("--split", required=True, help="train or val: reads LIST_PATH/SPLIT_list.txt and IMAGE_PATH/SPLIT/")
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
    add_flags(parser)
    return parser.parse_args()


if __name__ == "__main__":
    main()
