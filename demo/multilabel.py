"""Distil on canvases of several handwritten digits, as one would on COCO: draw, list, pack, train, compare.

    python -m demo.multilabel

The digits are scikit-learn's (UCI, 8 x 8 pixels), four to nine on a canvas; the classes among them are the target. As
networks for COCO start from ImageNet's weights, these start from single digits. Everything goes through the tools and
the entry script that COCO goes through. A second run reuses what the first left in demo/work/multilabel.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from statistics import mean, stdev

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from demo.__main__ import TRAINING_IMAGES, run_tool
from figures import curves
from utils.console import exit_with_its_code, progress

WORK = Path("demo/work/multilabel")
SEEDS = (0, 1, 2)
CANVASES = {"train": 600, "val": 300}
KINDS = {"single": (16, 1, 1), "several": (40, 4, 9)}  # side, pixels; fewest and most digits
SIZES = (8, 13)  # side of a digit, pixels
CONTRASTS = (0.4, 1.0)
OVERLAP = 0.15  # of a digit's square with those before it, the largest share
TRIES = 100  # to find a place for a digit
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


@exit_with_its_code
def main() -> None:
    """Run the demo and print its table."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # networks this small are slower on more
    write_canvases(WORK)
    for kind, split in product(KINDS, CANVASES):
        print(f"\npacking {kind}, {split}", flush=True)
        run_tool(*pack_command(kind, split))
    first, *others = SEEDS
    print(f"\ntraining the teachers and the students of seed {first}", flush=True)
    run_tool(*train_command(first), "--at_a_time", "2")
    print(f"\ntraining the students of seeds {', '.join(map(str, others))}, each in a process", flush=True)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(lambda seed: run_tool(*train_command(seed)), others))
    show_table()


def write_canvases(folder: Path) -> None:
    """Canvases of single digits and of several, each as `images/train/<number>.jpg` and `images/val/...` with
    `lists/train_list.txt`, `val_list.txt` and `classes.txt`, unless they are there."""
    digits = load_digits()
    for name, (side, fewest, most) in KINDS.items():
        for number, (split, count) in enumerate(CANVASES.items()):
            part = slice(TRAINING_IMAGES, None) if number else slice(TRAINING_IMAGES)
            rng = np.random.default_rng((number, most))
            images, lists = folder / name / "images" / split, folder / name / "lists"
            images.mkdir(parents=True, exist_ok=True)
            lists.mkdir(exist_ok=True)
            lines = []
            for place in progress(iterable=range(count), desc=f"{name}, {split}"):
                many = rng.integers(fewest, most + 1)
                chosen = rng.choice(np.arange(len(digits.images))[part], many, replace=False)
                canvas, shown = draw_canvas(digits.images[chosen], digits.target[chosen], side, rng)
                path = images / f"{place:04d}.jpg"
                if not path.exists():
                    Image.fromarray(canvas).save(path, quality=95)
                lines.append(" ".join(map(str, (path.name, *shown))))
            (lists / "classes.txt").write_text("".join(f"{label}\n" for label in range(10)))
            (lists / f"{split}_list.txt").write_text("\n".join(lines) + "\n")


def draw_canvas(
    images: np.ndarray, labels: np.ndarray, side: int, rng: np.random.Generator
) -> tuple[np.ndarray, list[int]]:
    """Digits [N, 8, 8] in sixteen gray levels, of classes [N], on a canvas, uint8 [side, side], and its classes.

    A digit for which there is no place is left out.
    """
    canvas, taken, shown = np.zeros((side, side)), np.zeros((side, side), bool), set[int]()
    for pixels, label in zip(images, labels):
        size, contrast = int(rng.integers(SIZES[0], SIZES[1] + 1)), rng.uniform(*CONTRASTS)
        for top, left in rng.integers(0, side - size + 1, (TRIES, 2)):
            window = slice(top, top + size), slice(left, left + size)
            if taken[window].mean() <= OVERLAP:
                scaled = Image.fromarray(pixels.astype(np.float32)).resize((size, size), Image.Resampling.BICUBIC)
                canvas[window] = np.maximum(canvas[window], contrast * np.asarray(scaled) / 16)
                taken[window] = True
                shown.add(int(label))
                break
    return (255 * canvas.clip(0, 1)).astype(np.uint8), sorted(shown)


def pack_command(kind: str, split: str) -> list[str]:
    """The packing tool for one split of single digits or of several."""
    paths = {"image_path": f"{kind}/images", "list_path": f"{kind}/lists", "output_path": f"lmdb/{kind}"}
    words = [word for flag, name in paths.items() for word in (f"--{flag}", str(WORK / name))]
    return ["dataset/img2lmdb.py", *words, "--split", split]


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


def shown(scores: list[float]) -> str:
    """The mean, and the standard deviation of several."""
    return f"{mean(scores):5.2f}" + (f" +- {stdev(scores):.2f}" if len(scores) > 1 else "")


if __name__ == "__main__":
    main()
