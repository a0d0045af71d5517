"""Distil on canvases of several handwritten digits, as one would on COCO: draw, list, pack, train, compare.

    python -m demo.multilabel

The digits are scikit-learn's (UCI, 8 x 8 pixels), four to nine on a canvas, which classes of them is to be told. Canvases
are JPEG files with a list of labels. Everything goes through the tools and the entry script that COCO goes through. A
second run reuses what the first left in demo/work/multilabel.
"""

from __future__ import annotations

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
CANVASES = {"train": 1500, "val": 500}
SIDE = 40  # of a canvas, pixels
DIGITS = (4, 9)  # on a canvas, fewest and most
SIDES = (8, 13)  # of a digit, pixels
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
    steps = [
        *((f"packing {split}", pack_command(split)) for split in CANVASES),
        *((f"teachers, where there are none yet, and students, seed {seed}", train_command(seed)) for seed in SEEDS),
    ]
    write_canvases(WORK)
    for number, (title, command) in enumerate(steps, start=1):
        print(f"\n[{number}/{len(steps)}] {title}", flush=True)
        run_tool(*command)
    show_table()


def write_canvases(folder: Path) -> None:
    """The canvases as `images/train/<number>.jpg` and `images/val/...`, and `lists/train_list.txt` and `val_list.txt`,
    unless they are there."""
    digits = load_digits()
    parts = {"train": slice(TRAINING_IMAGES), "val": slice(TRAINING_IMAGES, None)}
    for number, (split, part) in enumerate(parts.items()):
        rng = np.random.default_rng(number)
        images, labels = digits.images[part], digits.target[part]
        (folder / "images" / split).mkdir(parents=True, exist_ok=True)
        (folder / "lists").mkdir(exist_ok=True)
        lines = []
        for place in progress(iterable=range(CANVASES[split]), desc=f"{split} canvases"):
            canvas, shown = draw_canvas(images, labels, rng)
            path = folder / "images" / split / f"{place:04d}.jpg"
            if not path.exists():
                Image.fromarray(canvas).save(path, quality=95)
            lines.append(" ".join(map(str, (path.name, *shown))))
        (folder / "lists" / f"{split}_list.txt").write_text("\n".join(lines) + "\n")


def draw_canvas(images: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, list[int]]:
    """A canvas, uint8 [SIDE, SIDE], and the classes on it; of digits [N, 8, 8] in sixteen gray levels, labels [N].

    A digit for which there is no place is left out.
    """
    canvas, taken, shown = np.zeros((SIDE, SIDE)), np.zeros((SIDE, SIDE), bool), set[int]()
    for number in rng.choice(len(images), rng.integers(DIGITS[0], DIGITS[1] + 1), replace=False):
        side, contrast = rng.integers(SIDES[0], SIDES[1] + 1), rng.uniform(*CONTRASTS)
        for top, left in rng.integers(0, SIDE - side + 1, (TRIES, 2)):
            window = slice(top, top + side), slice(left, left + side)
            if taken[window].mean() <= OVERLAP:
                digit = Image.fromarray(images[number].astype(np.float32)).resize(
                    (side, side), Image.Resampling.BICUBIC
                )
                canvas[window] = np.maximum(canvas[window], contrast * np.asarray(digit) / 16)
                taken[window] = True
                shown.add(int(labels[number]))
                break
    return (255 * canvas.clip(0, 1)).astype(np.uint8), sorted(shown)


def pack_command(split: str) -> list[str]:
    """The packing tool for one split."""
    paths = {"image_path": "images", "list_path": "lists", "output_path": "lmdb"}
    words = [word for flag, name in paths.items() for word in (f"--{flag}", str(WORK / name))]
    return ["dataset/img2lmdb.py", *words, "--split", split]


def train_command(seed: int) -> list[str]:
    """train_with_distillation.py with all runs of a seed."""
    return ["train_with_distillation.py", "--cfg", "configs/digit_canvases.py", f"seed={seed}"]


def show_table() -> None:
    """Scores after the last epoch, and the curves of all runs."""
    runs, drawn = WORK / "runs", []
    print(f"\nScores (%) on {CANVASES['val']} validation canvases, last epoch\n")
    print("".join([f"  {'':42}", *(f"{score:<16}" for score in SCORES)]).rstrip())
    for title, name in ROWS.items():
        seeds = [""] if name.endswith("teacher") else [f"_{seed}" for seed in SEEDS]
        folders = [runs / f"canvases_{name}{seed}" for seed in seeds]
        last = [[row for row in curves.read_metrics(folder) if row["kind"] == "val"][-1] for folder in folders]
        print("".join([f"  {title:42}", *(f"{shown([row[score] for row in last]):<16}" for score in SCORES)]).rstrip())
        drawn += folders
    curves.draw(drawn, WORK / "curves.png")
    print(f"\nCurves: {WORK / 'curves.png'}; per_class.csv and per_class.png in each folder of {runs}")


def shown(scores: list[float]) -> str:
    """The mean, and the standard deviation of several."""
    return f"{mean(scores):5.2f}" + (f" +- {stdev(scores):.2f}" if len(scores) > 1 else "")


if __name__ == "__main__":
    main()
