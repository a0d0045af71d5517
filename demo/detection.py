"""Distil detectors on canvases of handwritten digits, as one would on COCO: draw, pack, train, compare.

    python -m demo.detection

Four to nine of scikit-learn's digits (UCI, 8 x 8 pixels) are on a canvas, in a folder like COCO's; a detector finds
and reads them. As detectors for COCO start from ImageNet's weights, these start from single digits. Everything goes
through the tools and the entry script that COCO goes through. A second run reuses what the first left in
demo/work/detection.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from demo.__main__ import run_tool
from demo.canvases import SINGLE, Kind, pack_listed, shown, write_images, write_listed
from figures import curves
from utils.console import resumable

WORK = Path("demo/work/detection")
SEEDS = (0, 1)
CANVASES = {"train": 400, "val": 200}
SINGLES = {"train": 600, "val": 100}
SEVERAL = Kind(64, 4, 9, (8, 18))
YEAR = "2017"
SCORES = ("AP50", "AP")
ROWS = {
    "ResNet-20, teacher": "teacher",
    "ResNet-8, alone": "alone",
    "  with PKD, of the pyramid": "pkd",
    "  with ReviewKD, of the pyramid": "reviewkd",
    "  with DKD, of the box head": "dkd",
    "  with LSHFM, of the box head": "lshfm",
}
DRAWN = ("teacher", "alone", "lshfm")  # beside the ground truth


@resumable
def main() -> None:
    """Run the demo and print its table."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # networks this small are slower on more
    write_listed(WORK / "single", SINGLE, SINGLES)
    for split in SINGLES:
        print(f"\npacking single digits, {split}", flush=True)
        run_tool(*pack_listed(WORK / "single", WORK / "lmdb" / "single", split))
    write_coco(WORK / "coco")
    print("\npacking canvases with boxes", flush=True)
    output = ["--output_path", str(WORK / "lmdb" / "boxes")]
    run_tool("dataset/coco2lmdb.py", "--image_path", str(WORK / "coco"), "--year", YEAR, "--boxes", *output)
    print("\ntraining the teacher and the students, two at a time", flush=True)
    run_tool(*train_command(), "--at_a_time", "2")
    show_table()
    print("\ndrawing what was found", flush=True)
    drawn = [str(folders_of(name)[0]) for name in DRAWN]
    run_tool("-m", "figures.detections", *drawn, "--images", "6", "--output", str(WORK / "detections.png"))


def write_coco(folder: Path) -> None:
    """Canvases with the boxes of their digits in COCO's layout: `train2017/`, `val2017/` and `annotations/`."""
    (folder / "annotations").mkdir(parents=True, exist_ok=True)
    for split, count in CANVASES.items():
        images, annotations = list[dict](), list[dict]()
        for name, digits in write_images(folder / f"{split}{YEAR}", SEVERAL, split, count):
            images.append({"id": len(images), "file_name": name, "width": SEVERAL.side, "height": SEVERAL.side})
            for digit in digits:
                x1, y1, x2, y2 = digit.box
                annotations.append(
                    {
                        "id": len(annotations),
                        "image_id": images[-1]["id"],
                        "category_id": digit.label,
                        "bbox": [x1, y1, x2 - x1, y2 - y1],
                        "area": (x2 - x1) * (y2 - y1),
                        "iscrowd": 0,
                    }
                )
        categories = [{"id": label, "name": str(label)} for label in range(10)]
        values = {"images": images, "annotations": annotations, "categories": categories}
        (folder / "annotations" / f"instances_{split}{YEAR}.json").write_text(json.dumps(values))


def train_command() -> list[str]:
    """train_with_distillation.py with all runs."""
    seeds = ",".join(map(str, SEEDS))
    return ["train_with_distillation.py", "--cfg", "configs/digit_boxes.py", f"seeds={seeds}", f"work={WORK}"]


def show_table() -> None:
    """Scores after the last epoch, and the curves of the runs of the first seed."""
    print(f"\nAverage precision (%) on {CANVASES['val']} validation canvases, last epoch\n")
    print("".join([f"  {'':34}", *(f"{score:<16}" for score in SCORES)]).rstrip())
    for title, name in ROWS.items():
        last = [[row for row in curves.read_metrics(run) if row["kind"] == "val"][-1] for run in folders_of(name)]
        print("".join([f"  {title:34}", *(f"{shown([row[score] for row in last]):<16}" for score in SCORES)]).rstrip())
    curves.draw([folders_of(name)[0] for name in ROWS.values()], WORK / "curves.png")
    print(f"\nCurves: {WORK / 'curves.png'}; per_class.csv and per_class.png in each folder of {WORK / 'runs'}")


def folders_of(name: str) -> list[Path]:
    """The runs of a row: one for each seed, but of the teacher."""
    seeds = [""] if name == "teacher" else [f"_{seed}" for seed in SEEDS]
    return [WORK / "runs" / f"boxes_{name}{seed}" for seed in seeds]


if __name__ == "__main__":
    main()
