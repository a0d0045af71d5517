"""Pack PASCAL VOC into LMDB shards, with the classes of each photo or with its boxes.

    python dataset/voc2lmdb.py --image_path /data --output_path /data/voc07 --year 2007
    python dataset/voc2lmdb.py --image_path /data --output_path /data/voc0712 --year 07+12 --boxes

It reads the official folders, VOCdevkit/VOC2007/ and so on, or the tar files as they are fetched, without unpacking
them: VOCtrainval_06-Nov-2007.tar, VOCtest_06-Nov-2007.tar, VOCtrainval_11-May-2012.tar. It writes

    --year     train                              val
    2007       trainval of 2007                   test of 2007
    2012       train of 2012                      val of 2012, for its test set has no public labels
    07+12      trainval of 2007, then of 2012     test of 2007

A class counts as present, absent or, where all its objects in a photo are difficult, to be ignored: all three are
stored. The annotations are compared with the official lists of each class; where no annotations are there, the lists
serve alone. A kill loses at most unfinished shards: the same command resumes from there, and on finished splits it
verifies every checksum.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from utils.starting import begin

    begin()

from dataset.sources.voc import SETS, TARS, find_voc
from dataset.store.options import add_flags, fitting_of, options_of, photo_flags, split_folder
from dataset.store.packing import pack
from dataset.store.storage import AsJpeg
from utils.console import resumable


@resumable
def main() -> None:
    """Pack both splits."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--image_path", type=Path, required=True, help="the folder with VOCdevkit/, VOC2007/ or the tar files")
    add("--year", choices=SETS, required=True, help="which photos, as above")
    add("--boxes", action="store_true", help="for detection: store each object's box and whether it is difficult")
    photo_flags(parser)
    add_flags(parser)
    flags = parser.parse_args()
    sources = find_voc(flags.image_path, flags.year, boxes=flags.boxes)  # all before one is written
    if len(sources) == 1:
        print(f"no val: {flags.image_path} holds no test set of VOC2007, nor {TARS['2007', 'test']}")
    for source in sources:
        pack(source, AsJpeg(fitting_of(flags)), split_folder(flags, source.split), options_of(flags))


if __name__ == "__main__":
    main()
