"""Top-1 of students from a live teacher and from its stored outputs, over seeds.

    python -m benchmarks.stored_accuracy [--data FOLDER] [--weights FILE] [--seeds 3] [--epochs 30] [--at_once 1]

An ImageNet MobileNetV2 with 1000 outputs teaches a ShuffleNetV2 (half width) ten ImageNet classes at 128 pixels, by
WSLD (T = 2), KD (T = 4) and DKD (T = 4), which learn side by side on one stream. A JSON line for each layout and
method: mean and spread (standard deviation) of the top-1 after the last epoch. `all float32` must give the losses of
the live teacher exactly where the device computes the same twice, as a CPU does.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from statistics import mean, stdev

import torch

from benchmarks.common import check_counts, run, show
from benchmarks.real_photos import unpack_and_pack
from figures.curves import read_metrics
from utils.console import exit_with_its_code, progress
from utils.errors import UsageError

LAYOUTS = {  # what is stored, and settings of the teacher
    "live": [],
    "all float32": ["name=all", "type=float32"],
    "all int8": ["name=all", "type=int8"],
    "prior 11": ["name=prior"],
    "topk 10": ["name=topk", "k=10"],
}
METHODS = ("wsld", "kd", "dkd")


@exit_with_its_code
def main() -> None:
    """Pack, train with every layout and seed, and print a line of each."""
    options = parse()
    with tempfile.TemporaryDirectory() as work:
        unpack_and_pack(options.data, Path(work))
        device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
        cases = [*product(options.layouts, range(options.seeds))]
        with ThreadPoolExecutor(options.at_once) as pool:
            done = pool.map(lambda case: trained(options, Path(work), *case), cases)
            scores = dict(zip(cases, progress(iterable=done, total=len(cases), unit="run")))
        for layout, method in product(options.layouts, METHODS):
            found = [scores[layout, seed][method] for seed in range(options.seeds)]
            top1 = [row["top1"] for row in found]
            row = {"stored": layout, "method": method, "top1": round(mean(top1), 2)}
            row |= {"spread": round(stdev(top1), 2)} if len(top1) > 1 else {}
            row |= {"loss": [round(one["loss"], 6) for one in found]}
            show("stored_accuracy", {**row, "epochs": options.epochs, "device": device})


def parse() -> argparse.Namespace:
    """Options.

    Raises:
        UsageError: a file is missing, or a count is below 1.
    """
    data = Path(os.environ.get("LIMBECK_DATA", "../shared/data"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=data, help="holds imagenette10.zip")
    parser.add_argument("--weights", type=Path, help="MobileNetV2 state dict (default: ../weights beside the data)")
    parser.add_argument("--layouts", nargs="+", choices=LAYOUTS, default=[*LAYOUTS], metavar="LAYOUT")
    parser.add_argument("--seeds", type=int, default=3, help="default: 3")
    parser.add_argument("--epochs", type=int, default=30, help="default: 30")
    parser.add_argument("--at_once", type=int, default=1, help="commands at a time (default: 1)")
    options = parser.parse_args()
    check_counts(seeds=options.seeds, epochs=options.epochs, at_once=options.at_once)
    options.weights = (options.weights or options.data.parent / "weights" / "imagenet_mobilenet_v2.pth").resolve()
    for path in (options.data / "imagenette10.zip", options.weights):
        if not path.exists():
            raise UsageError(f"{path} is missing: set LIMBECK_DATA to the data folder, or give --data and --weights")
    return options


def trained(options: argparse.Namespace, work: Path, layout: str, seed: int) -> dict[str, dict[str, float]]:
    """The scores and the training loss of the last epoch by method."""
    folder = work / f"{layout}_{seed}".replace(" ", "_")
    words = [f"teachers.teacher.layout.{word}" for word in LAYOUTS[layout]]
    words += [f"teachers.teacher.store={folder / 'store'}"] if layout != "live" else []
    run(
        *(
            "train_with_distillation.py",
            "--cfg",
            "configs/imagenette_stored.py",
            "--grid",
            f"method={','.join(METHODS)}",
        ),
        *(f"epochs={options.epochs}", f"train_params.seed={seed}", f"train_params.output_path={folder}", *words),
        *(f"data.data_path={work / 'lmdb'}", f"teachers.teacher.weights={options.weights}"),
    )
    found = {}
    for method in METHODS:
        rows = read_metrics(folder / f"stored_method={method}")
        train, val = ([row for row in rows if row["kind"] == kind][-1] for kind in ("train", "val"))
        found[method] = {"top1": val["top1"], "loss": train["loss"]}
    shutil.rmtree(folder)
    return found


if __name__ == "__main__":
    main()
