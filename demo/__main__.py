"""Distil a ResNet-20 into a ResNet-8 on handwritten digits, as one would on ImageNet: list, pack, train, compare.

    make demo

The digits are scikit-learn's (UCI, 8 x 8 pixels), written as JPEG files in ImageNet's folder layout. Everything goes
through the tools and the entry script that ImageNet goes through. A second run reuses what the first left in demo/work.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from statistics import mean, stdev

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

from figures import curves
from utils.console import progress, resumable
from utils.errors import DataError

WORK = Path("demo/work")
SEEDS = (0, 1, 2)
TRAINING_IMAGES = 1000  # the other 797 validate


@resumable
def main() -> None:
    """Run the demo and print its table."""
    steps = [
        *((f"packing {split}", pack_command(split)) for split in ("train", "val")),
        ("training the teacher", train_command("teacher")),
        *((f"student alone, seed {seed}", train_command("student", seed)) for seed in SEEDS),
        *((f"student distilled, seed {seed}", train_command("wsld", seed)) for seed in SEEDS),
    ]
    write_images(WORK / "images")
    run_tool("dataset/mk_img_list.py", "--image_path", str(WORK / "images"), "--output_path", str(WORK / "lists"))
    for number, (title, command) in enumerate(steps, start=1):
        print(f"\n[{number}/{len(steps)}] {title}", flush=True)
        run_tool(*command)
    show_table()


def write_images(folder: Path) -> None:
    """The digits as `train/<digit>/<number>.jpg` and `val/...`, unless they are there."""
    digits = load_digits()
    for number, (pixels, label) in enumerate(zip(progress(iterable=digits.images, desc="images"), digits.target)):
        split = "train" if number < TRAINING_IMAGES else "val"
        path = folder / split / str(label) / f"{number:04d}.jpg"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            # Sixteen gray levels to 8 bits.
            Image.fromarray((pixels * 255 / 16).astype(np.uint8)).save(path, quality=95)


def pack_command(split: str) -> list[str]:
    """The packing tool for one split."""
    paths = {"image_path": "images", "list_path": "lists", "output_path": "lmdb"}
    words = [word for flag, name in paths.items() for word in (f"--{flag}", str(WORK / name))]
    return ["dataset/img2lmdb.py", *words, "--split", split]


def train_command(method: str, seed: int | None = None) -> list[str]:
    """train_with_distillation.py with one of the demo's methods."""
    command = ["train_with_distillation.py", "--cfg", "configs/digits.py", f"method={method}"]
    return command if seed is None else [*command, f"name=digits_{method}_{seed}", f"train_params.seed={seed}"]


def run_tool(*command: str) -> None:
    """Run one of the project's scripts, showing what it prints."""
    code = subprocess.run([sys.executable, *command], check=False).returncode
    if code:
        raise DataError(f"`python {' '.join(command)}` ended with exit code {code}; its message is above")


def show_table() -> None:
    """Top-1 after the last epoch, and the curves of all runs."""
    runs = WORK / "runs"
    rows = {
        "teacher, ResNet-20": [runs / "digits_teacher"],
        "student, ResNet-8, alone": [runs / f"digits_student_{seed}" for seed in SEEDS],
        "student, ResNet-8, distilled (WSLD)": [runs / f"digits_wsld_{seed}" for seed in SEEDS],
    }
    print("\nTop-1 (%) on 797 validation digits, last epoch")
    for title, folders in rows.items():
        scores = [final_top1(folder) for folder in folders]
        spread = f" +- {stdev(scores):.2f}" if len(scores) > 1 else "        "
        each = ", ".join(f"{score:.2f}" for score in scores)
        print(f"  {title:36} {mean(scores):6.2f}{spread}   ({each})")
    curves.draw([folder for folders in rows.values() for folder in folders], WORK / "curves.png")
    print(f"Curves: {WORK / 'curves.png'}")


def final_top1(run: Path) -> float:
    """Validation top-1 after the run's last epoch, percent."""
    return [row["top1"] for row in curves.read_metrics(run) if row["kind"] == "val"][-1]


if __name__ == "__main__":
    main()
