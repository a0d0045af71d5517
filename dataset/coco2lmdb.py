"""Pack MS COCO into LMDB shards, with the labels of each image or with boxes.

    python dataset/coco2lmdb.py --image_path /data/coco --year 2017 --output_path /data/coco_lmdb

IMAGE_PATH holds `train2017/`, `val2017/` and `annotations/instances_train2017.json`, `..._val2017.json`, or the same of
2014; `train` and `val` are written. In the place of the annotations it may hold lists of labels,
`[{"file_name": str, "labels": [int, ...]}, ...]`: `data/train_anno.json` and `data/val_anno.json`, or those that
--train_list and --val_list name. Their labels are positions in alphabetical order of the names, which are those of
`category.json` beside the list, of --classes, or COCO's own where all 80 labels occur.

A crowd counts as present. Images without a label are left out, as in L2D, LSHFM and CPSD. With --boxes an image has its
boxes instead, in pixels, clipped to the image, and the areas of the masks. Images without a box that is more than one
pixel wide and high are then left out of train and kept in val, as in torchvision's references.

A kill loses at most unfinished shards: the same command resumes from there, and on finished splits it verifies every
checksum. Many machines can share the work on one output folder with --part 1/4 ... --part 4/4; the command without
--part then joins the shards.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from utils.starting import begin

    begin()

from dataset.sources.coco import ORDERS, find_coco
from dataset.sources.imagenet import SPLITS
from dataset.store.options import add_flags, fitting_of, options_of, photo_flags, split_folder
from dataset.store.packing import pack
from dataset.store.storage import AsJpeg
from utils.console import resumable
from utils.errors import UsageError


@resumable
def main() -> None:
    """Pack both splits, or one."""
    flags = _parse()
    sources = [
        find_coco(
            flags.image_path,
            split,
            flags.year,
            listed=getattr(flags, f"{split}_list"),
            class_file=flags.classes,
            class_order=flags.class_order,
            boxes=flags.boxes,
            keep_unlabelled=None if flags.unlabelled is None else flags.unlabelled == "keep",
        )
        for split in ([flags.split] if flags.split else SPLITS)
    ]  # all are found before one is written
    if len({source.classes for source in sources}) > 1:
        raise UsageError("the categories of train and val differ: give annotations of the same release")
    for source in sources:
        pack(source, AsJpeg(fitting_of(flags)), split_folder(flags, source.split), options_of(flags))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--image_path", type=Path, required=True, help="folder that holds trainYEAR/, valYEAR/ and annotations/")
    add("--year", choices=("2014", "2017"), required=True, help="of the folders' names")
    add("--split", choices=SPLITS, help="pack this one only (default: both)")
    add("--boxes", action="store_true", help="pack boxes, for detection (default: the labels of each image)")
    add(
        "--unlabelled",
        choices=("keep", "drop"),
        help="images without a label, in both splits (default: drop; with --boxes, keep those of val)",
    )
    add(
        "--class_order",
        choices=ORDERS,
        default=ORDERS[0],
        help="order of the labels: alphabetical, as L2D and CPSD have it (default), or that of the dataset's ids, "
        "person first, as LSHFM has it",
    )
    for split in SPLITS:
        add(f"--{split}_list", type=Path, metavar="FILE", help=f"JSON list of labels to take for {split}")
    add("--classes", type=Path, metavar="FILE", help="names of the lists' labels: one a line, or JSON {name: label}")
    photo_flags(parser)
    add_flags(parser)
    return parser.parse_args()


if __name__ == "__main__":
    main()
