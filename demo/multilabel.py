"""Distil on canvases of several handwritten digits, as one would on COCO: draw, list, pack, train, compare.

    python -m demo.multilabel

Four to nine of scikit-learn's digits (UCI, 8 x 8 pixels) are on a canvas; the classes among them are the target. As
networks for COCO start from ImageNet's weights, these start from single digits. Everything goes through the tools and
the entry script that COCO goes through. A second run reuses what the first left in demo/work/multilabel.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from demo.__main__ import run_tool
from demo.canvases import SINGLE, Kind, pack_listed, shown, write_listed
from figures import curves
from utils.console import resumable

WORK = Path("demo/work/multilabel")
SEEDS = (0, 1, 2)
CANVASES = {"train": 600, "val": 300}
KINDS = {"single": SINGLE, "several": Kind(40, 4, 9)}
SCORES = ("mAP", "CF1", "OF1")
ROWS = {
    "ResNet-20 with label embeddings, teacher": "teacher",
    "ResNet-8 with label embeddings, alone": "alone",
    "  with MLD": "mld",
    "  with L2D": "l2d",
    "ResNet-20, pooled, teacher": "pooled_teacher",
    "ResNet-8, pooled, alone": "pooled_alone",
    "  with LSHFM": "lshfm",
}


@resumable
def main() -> None:
    """Run the demo and print its table."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # networks this small are slower on more
    for name, kind in KINDS.items():
        write_listed(WORK / name, kind, CANVASES)
        for split in CANVASES:
            print(f"\npacking {name}, {split}", flush=True)
            run_tool(*pack_listed(WORK / name, WORK / "lmdb" / name, split))
    first, *others = SEEDS
    print(f"\ntraining the teachers and the students of seed {first}", flush=True)
    run_tool(*train_command(first), "--at_a_time", "2")
    print(f"\ntraining the students of seeds {', '.join(map(str, others))}, each in a process", flush=True)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(lambda seed: run_tool(*train_command(seed)), others))
    show_table()


def train_command(seed: int) -> list[str]:
    """train_with_distillation.py with all runs of a seed."""
    return ["train_with_distillation.py", "--cfg", "configs/digit_canvases.py", f"seed={seed}", f"work={WORK}"]


def show_table() -> None:
    """Scores after the last epoch, and the curves of the runs of the first seed."""
    runs, drawn = WORK / "runs", []
    print(f"\nScores (%) on {CANVASES['val']} validation canvases, last epoch\n")
    print("".join([f"  {'':42}", *(f"{score:<16}" for score in SCORES)]).rstrip())
    for title, name in ROWS.items():
        seeds = [""] if name.endswith("teacher") else [f"_{seed}" for seed in SEEDS]
        folders = [runs / f"canvases_{name}{seed}" for seed in seeds]
        last = [[row for row in curves.read_metrics(folder) if row["kind"] == "val"][-1] for folder in folders]
        print("".join([f"  {title:42}", *(f"{shown([row[score] for row in last]):<16}" for score in SCORES)]).rstrip())
        drawn.append(folders[0])
    curves.draw(drawn, WORK / "curves.png")
    print(f"\nCurves: {WORK / 'curves.png'}; per_class.csv and per_class.png in each folder of {runs}")


if __name__ == "__main__":
    main()
