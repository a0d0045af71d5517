"""Seconds of several students on one stream of batches, beside as many runs one after the other.

    OMP_NUM_THREADS=1 python -m benchmarks.students [--data FOLDER] [--teacher resnet50] \\
        [--student shufflenet_v2_x0_5] [--side 64]

WSLD's four students of a grid, two weights by two temperatures, learn from photos that are packed once under --work:
first by four commands, then by one. `seconds` is what the commands took, start and validation included; `ratio` is of
the one to the four. Weights of every student must be equal, byte for byte, or there is no line: so it runs on a CPU.
"""

from __future__ import annotations

import argparse
import shutil
import time
from pathlib import Path

from benchmarks.common import check_counts, files_below, on_photos, run, show
from benchmarks.trainer import prepare
from utils.console import exit_with_its_code
from utils.errors import DataError

GRID = {"terms.wsld.weight": ("1", "2.5"), "terms.wsld.options.temperature": ("2", "4")}


@exit_with_its_code
def main() -> None:
    """Pack, train by four commands and by one, compare, and print a line."""
    options = parse()
    prepare(options)
    folders = {how: options.work / how for how in ("alone", "together")}
    for folder in folders.values():
        shutil.rmtree(folder, ignore_errors=True)
    (weight, weights), (temperature, temperatures) = GRID.items()
    start = time.perf_counter()
    for one in weights:
        for other in temperatures:
            train(options, folders["alone"], "--grid", f"{weight}={one}", "--grid", f"{temperature}={other}")
    alone = time.perf_counter() - start
    start = time.perf_counter()
    train(options, folders["together"], *(word for key in GRID for word in ("--grid", f"{key}={','.join(GRID[key])}")))
    together = time.perf_counter() - start
    for run_alone in sorted(path for path in folders["alone"].iterdir() if path.is_dir()):
        name = f"{run_alone.name}/student.safetensors"
        if (folders["alone"] / name).read_bytes() != (folders["together"] / name).read_bytes():
            raise DataError(f"{name}: other weights than those of the run alone")
    seconds = {"seconds_alone": round(alone, 1), "seconds_together": round(together, 1)}
    pair = f"{options.teacher}/{options.student}"
    show("students", {"pair": pair, "side": options.side, **seconds, "ratio": round(together / alone, 3)})


def train(options: argparse.Namespace, folder: Path, *grid: str) -> None:
    """The students of a grid, by one command."""
    teacher = [f"teacher={options.teacher}", f"teachers.teacher.weights={options.work / 'teacher.pth'}"]
    run(
        *("train_with_distillation.py", "--cfg", "configs/imagenet.py", "method=wsld", *grid, *teacher),
        *(f"student={options.student}", "teachers.teacher.expect=0", "name=wsld"),
        *(f"epochs={options.epochs}", "optim.milestones=", f"data.data_path={options.work / 'lmdb'}"),
        *(f"data.batch_size={options.batch}", f"data.input_size={options.side}", f"data.val_resize={options.side}"),
        *("data.num_workers=1", f"train_params.output_path={folder}", "train_params.amp=off"),
    )


def parse() -> argparse.Namespace:
    """Options.

    Raises:
        UsageError: there are no photos, or a count is below 1.
    """
    parser = on_photos(__doc__, "benchmark_students")
    parser.add_argument("--teacher", default="resnet50", help="of torchvision; default: resnet50")
    parser.add_argument("--student", default="shufflenet_v2_x0_5", help="default: shufflenet_v2_x0_5")
    parser.add_argument("--copies", type=int, default=4, help="of each photo in an epoch (default: 4)")
    parser.add_argument("--epochs", type=int, default=1, help="default: 1")
    parser.add_argument("--batch", type=int, default=64, help="images a step (default: 64)")
    parser.add_argument("--side", type=int, default=64, help="of the images, pixels (default: 64)")
    options = parser.parse_args()
    check_counts(**{name: getattr(options, name) for name in ("copies", "epochs", "batch", "side")})
    files_below(options.data)
    return options


if __name__ == "__main__":
    main()
