"""List the images of a dataset in ImageNet's layout: train_list.txt, val_list.txt and classes.txt.

    python dataset/mk_img_list.py --image_path /data/imagenet --output_path /data/lists

One `relative/path label` a line, sorted. The label is the position of the class folder among the sorted folders of
`train`, the same for every split; line n of classes.txt (from 0) names class n. Running it twice gives the same bytes.
--class_list gives the classes instead, for a subset that keeps the labels of the whole (`--class_list imagenet`: ten
classes of ImageNet under a 1000-way teacher). Hidden files and folders and those of systems (@eaDir, Thumbs.db, ...)
are passed over.

Where the images of `val` lie in one folder, as ImageNet's do in their archive, --val_labels names the file of their
labels: ILSVRC2012_validation_ground_truth.txt in the devkit's `data`, or a CSV file of file names and class folders
such as Kaggle's LOC_val_solution.csv. No image is moved.

--no_labels lists images that have no labels, wherever they lie below `train` (`--no_labels train`) or below both
(`--no_labels train val`), a path a line: a student can then learn from a teacher alone (docs/own_data.md). The classes
are the folders of `val` then, or those of --class_list, or none.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from utils.starting import begin

    begin()

from dataset.class_names import imagenet_classes
from dataset.sources.imagenet import (
    CLASSES,
    SPLITS,
    Entry,
    find_classes,
    find_images,
    find_unlabelled,
    list_bytes,
    read_classes,
)
from dataset.sources.val_labels import find_labelled
from utils.console import exit_with_its_code
from utils.errors import UsageError
from utils.files import make_folder, write_atomically
from utils.text import counted, printable


@exit_with_its_code
def main() -> None:
    """Write the lists."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--image_path", type=Path, required=True, help="folder that holds train/ and val/")
    parser.add_argument("--output_path", type=Path, required=True, help="folder to write the lists to")
    parser.add_argument(
        "--class_list",
        help="file of class folders, one a line, in the order of their labels; imagenet: the 1000 of ImageNet",
    )
    parser.add_argument(
        "--val_labels", type=Path, help="the devkit's ground truth or a CSV file, for a val/ without folders"
    )
    parser.add_argument(
        "--no_labels", nargs="+", choices=SPLITS, default=[], metavar="SPLIT", help="splits to list without labels"
    )
    options = parser.parse_args()

    named = options.class_list
    listed = imagenet_classes() if named == "imagenet" else read_classes(Path(named)) if named else None
    classes = _classes(options.image_path, listed, options.no_labels)
    if broken := [name for name in classes if "\n" in name or "\r" in name]:
        raise UsageError(f"the class folder {printable(broken[0])} has a line break in its name; rename it")
    if all(map(str.isdecimal, classes)) and list(classes) != sorted(classes, key=int):
        print(
            f"class folders are sorted as text, not as numbers: {', '.join(classes[:4])}, ...; --class_list orders them"
        )
    found: dict[str, list[Entry]] = {}  # all before one is written
    for split in SPLITS:
        folder = options.image_path / split
        if not os.path.lexists(folder):
            print(f"{folder}: no such folder, no list written for {split}")
            continue
        if split in options.no_labels:
            found[split], remarks = find_unlabelled(folder)
        elif split == "val" and options.val_labels:
            found[split], remarks = find_labelled(folder, options.val_labels, classes)
        else:
            found[split], remarks = find_images(folder, classes)
        for remark in remarks:
            print(f"{split}: {remark}")
    make_folder(options.output_path, "--output_path")
    if classes:
        names = b"".join(os.fsencode(f"{name}\n") for name in classes)
        write_atomically(options.output_path / CLASSES, names)
    elif not any((options.output_path / f"{split}_list.txt").exists() for split in SPLITS if split not in found):
        (options.output_path / CLASSES).unlink(missing_ok=True)  # of lists that are replaced
    for split, entries in found.items():
        target = options.output_path / f"{split}_list.txt"
        write_atomically(target, list_bytes(entries))
        labels = "no labels" if split in options.no_labels else counted(len(classes), "class")
        print(f"{target}: {counted(len(entries), 'image')}, {labels}")


def _classes(image_path: Path, listed: tuple[str, ...] | None, no_labels: list[str]) -> tuple[str, ...]:
    """The classes of `train`; where it has no labels, those ``listed``, those of `val`, or none."""
    if "train" not in no_labels:
        return find_classes(image_path, listed)
    if "val" in no_labels or not os.path.lexists(image_path / "val"):
        return listed or ()
    return find_classes(image_path, listed, "val")


if __name__ == "__main__":
    main()
