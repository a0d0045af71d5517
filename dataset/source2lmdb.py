"""Pack what a function of your own yields into LMDB shards.

    python dataset/source2lmdb.py my_data:train --output_path /data/lmdb --split train [key=value ...]

calls `train` of my_data.py, in this folder or on PYTHONPATH, with the options key=value, and packs the records that it
yields, `dataset.Record(key, image, target)`:

    key       a text, of which each record has another
    image     the bytes of an image file, its path, a PIL image, or a NumPy array uint8 [H, W, 3] or [H, W]
    target    a label, from 0 or by name; a list of labels; dataset.Boxes; or none: a split without labels

All targets of a split are of one kind. `train.classes = (...)` after the function names its classes; without, they are
those of the packed train beside another split, else the names that occur, sorted. docs/own_data.md has functions for
CSV files, Hugging Face datasets, WebDataset, FFCV and MosaicML's MDS.

The function is asked for its records by one process, and these are kept in OUTPUT_PATH/SPLIT/records/ until the shards
are written: images that are no files of their own take their size there. After a kill the same command goes on. The
function is asked again, from its beginning, where it had not yielded all, its module has changed, an image could not be
packed, or all is finished, to verify it; shards that were finished of other records are then refused.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from utils.starting import begin

    begin()

from dataset.sources.functions import Yielding
from dataset.sources.iterated import find_yielded, forget_images, forget_records
from dataset.store.options import add_flags, fitting_of, options_of, photo_flags, split_folder
from dataset.store.packing import pack
from dataset.store.storage import AsJpeg, AsPixels
from utils.console import resumable
from utils.errors import DataError


@resumable
def main() -> None:
    """Ask for the records, pack, verify and describe one split."""
    flags = _parse()
    folder = split_folder(flags, flags.split)
    given = Yielding(flags.function, flags.options, Path.cwd())
    source = find_yielded(given, flags.split, folder, split_folder(flags, "train"))
    try:
        pack(source, AsPixels() if flags.pixels else AsJpeg(fitting_of(flags)), folder, options_of(flags))
    except DataError:  # what the function yields may be mended
        forget_records(folder)
        raise
    if flags.part is None:
        forget_images(folder)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("function", metavar="module:function", help="what yields records")
    add("options", nargs="*", metavar="key=value", help="options of the function")
    add("--split", required=True, help="train or val: the records go to OUTPUT_PATH/SPLIT/")
    add("--pixels", action="store_true", help="store raw pixels, of images of at most 256 pixels a side")
    photo_flags(parser)
    add_flags(parser)
    return parser.parse_intermixed_args()


if __name__ == "__main__":
    main()
