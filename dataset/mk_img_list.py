"""List the images of a dataset in ImageNet's layout: train_list.txt, val_list.txt and classes.txt.

    python dataset/mk_img_list.py --image_path /data/imagenet --output_path /data/lists

One `relative/path label` a line, sorted. The label is the position of the class folder among the sorted folders of
`train`, the same for every split; line n of classes.txt (from 0) names class n. Running it twice gives the same bytes.
--class_list gives the classes instead, for a subset that keeps the labels of the whole (ten classes of ImageNet under
a 1000-way teacher).
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from dataset.sources.imagenet import CLASSES, SPLITS, find_classes, find_images, list_bytes, read_classes
from utils.console import exit_with_its_code
from utils.errors import UsageError
from utils.files import make_folder, write_atomically


@exit_with_its_code
def main() -> None:
    """Write the lists."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image_path", type=Path, required=True, help="folder that holds train/ and val/")
    parser.add_argument("--output_path", type=Path, required=True, help="folder to write the lists to")
    parser.add_argument(
        "--class_list", type=Path, help="file of class folders, one a line, in the order of their labels"
    )
    options = parser.parse_args()

    listed = read_classes(options.class_list) if options.class_list else None
    classes = find_classes(options.image_path, listed)
    if any("\n" in name for name in classes):
        raise UsageError("a class folder has a line break in its name; rename it")
    make_folder(options.output_path, "--output_path")
    names = b"".join(os.fsencode(f"{name}\n") for name in classes)
    write_atomically(options.output_path / CLASSES, names)
    for split in SPLITS:
        folder = options.image_path / split
        if not folder.is_dir():
            print(f"{folder}: no such folder, no list written for {split}")
            continue
        entries, remarks = find_images(folder, classes)
        for remark in remarks:
            print(f"{split}: {remark}")
        target = options.output_path / f"{split}_list.txt"
        lines = list_bytes(entries)
        write_atomically(target, lines)
        print(f"{target}: {len(entries)} images, {len(classes)} classes")


if __name__ == "__main__":
    main()
