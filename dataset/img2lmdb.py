"""Pack the images of a list into LMDB shards.

    python dataset/img2lmdb.py --image_path /data/imagenet --list_path /data/lists --output_path /data/lmdb \\
        --split train

The list of a split holds a label for each image (dataset/mk_img_list.py writes it), or any number of labels
(multi-label), in one of these forms:

    SPLIT_list.txt    birds/1.jpg 3 17 42      labels, which are lines of classes.txt, from 0; a path alone has none
    SPLIT_list.txt    birds/1.jpg              on every line: images without labels (--no_labels of mk_img_list.py)
    SPLIT_list.txt    birds/1.jpg 0 1 0 ...    a value for each of three or more classes, 0 or 1
    SPLIT_list.csv    path,cat,dog,...         and below it a line an image: 0, 1, or -1 for a class to be ignored

Each may be packed as `.gz`. Images of multi-label lists lie in IMAGE_PATH/SPLIT/, or below IMAGE_PATH where it has no
such folder.

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
    from utils.starting import begin

    begin()

from dataset.sources.files import find_listed
from dataset.store.options import add_flags, fitting_of, options_of, photo_flags, split_folder
from dataset.store.packing import pack
from dataset.store.storage import AsJpeg
from utils.console import resumable


@resumable
def main() -> None:
    """Pack, verify and describe one split."""
    flags = _parse()
    source = find_listed(flags.image_path, flags.list_path, flags.split)
    pack(source, AsJpeg(fitting_of(flags)), split_folder(flags, flags.split), options_of(flags))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--image_path", type=Path, required=True, help="folder that holds train/ and val/")
    add("--list_path", type=Path, required=True, help="folder of the lists, and of classes.txt")
    add("--split", required=True, help="train or val: reads its list in LIST_PATH, and IMAGE_PATH/SPLIT/")
    photo_flags(parser)
    add_flags(parser)
    return parser.parse_args()


if __name__ == "__main__":
    main()
