"""The main job on real photographs, each result beside what it must equal; one JSON line each.

    python -m benchmarks.real_photos [--data FOLDER] [--weights FILE]

1. Original ImageNet JPEGs are packed: every file's bytes come back (--no_tiles), or every pixel (tiled), under the
   right label.
2. An ImageNet MobileNetV2 reaches through lists, LMDB, loader and `--eval` the scores of a plain loop of PIL and
   torchvision over the same files: exactly with data.decode=exact, to within rounding by default.
3. It is the teacher of a ShuffleNetV2 with weighted soft labels; the run is killed in mid-epoch and resumed.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torchvision
from torchvision import transforms

from dataset.jpeg.decode import decode
from dataset.store.reader import ShardReader
from figures.curves import read_metrics
from models.fitting import load_weights
from utils.console import exit_with_its_code
from utils.errors import UsageError

CONFIG = "configs/imagenette_wsld.py"


@exit_with_its_code
def main() -> None:
    """Run the three parts and print their results."""
    data = Path(os.environ.get("LIMBECK_DATA", "../shared/data"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=data, help="holds imagenet200/ and imagenette10.zip")
    parser.add_argument("--weights", type=Path, help="MobileNetV2 state dict (default: ../weights beside the data)")
    options = parser.parse_args()
    weights = options.weights or options.data.parent / "weights" / "imagenet_mobilenet_v2.pth"
    for path in (options.data / "imagenet200", options.data / "imagenette10.zip", weights):
        if not path.exists():
            raise UsageError(f"{path} is missing: set LIMBECK_DATA to the data folder, or give --data and --weights")
    with tempfile.TemporaryDirectory() as work:
        show("packing", pack_originals(options.data / "imagenet200", Path(work, "originals")))
        imagenette = unpack_and_pack(options.data, Path(work, "imagenette"))
        show("teacher", scores_of_teacher(imagenette, weights.resolve()))
        show("distillation", distill(imagenette, weights.resolve()))


def pack_originals(source: Path, work: Path) -> dict[str, object]:
    """Pack the photos as they are and tiled, and compare every record with its file."""
    (work / "images").mkdir(parents=True)
    (work / "images" / "train").symlink_to((source / "images").resolve())
    result: dict[str, object] = {}
    for name, same, options in (
        ("untiled", lambda packed, original: packed == original, ["--no_tiles"]),
        ("tiled", lambda packed, original: np.array_equal(decode(packed), decode(original)), []),
    ):
        shutil.rmtree(work / "lmdb", ignore_errors=True)
        pack(work, ["train"], packing=options)
        reader = ShardReader(work / "lmdb" / "train")
        records = [reader.read(index) for index in range(len(reader))]
        reader.close()
        files = [(source / "images" / record.key).read_bytes() for record in records]
        result |= {
            "images": len(records),
            f"{name}_right_label": sum(
                reader.classes[int(record.target)] == record.key.split("/")[0]  # type: ignore[arg-type]
                for record in records
            ),
            f"{name}_identical": sum(same(record.image, file) for record, file in zip(records, files, strict=True)),
            f"{name}_bytes": round(sum(len(record.image) for record in records) / sum(map(len, files)), 4),
        }
    return result


def unpack_and_pack(data: Path, work: Path) -> Path:
    """Unzip the ten classes and pack both splits under ImageNet's 1000 labels."""
    with zipfile.ZipFile(data / "imagenette10.zip") as archive:
        archive.extractall(work / "images")
    rows = (data / "imagenet200" / "synset_index.tsv").read_text().splitlines()
    (work / "synsets.txt").write_text("".join(f"{row.split()[1]}\n" for row in rows))
    pack(work, ["train", "val"], listing=["--class_list", str(work / "synsets.txt")])
    return work


def scores_of_teacher(work: Path, weights: Path) -> dict[str, object]:
    """The teacher's scores through Limbeck and through a plain loop."""
    settings = ["data.input_size=224", "data.val_resize=256", "--eval", "teacher"]
    ours = {}
    for way in ("exact", "planes"):
        printed = trainer(work, weights, f"data.decode={way}", *settings).stdout
        ours[f"limbeck_{way}"] = {
            name: float(value) for name, value in re.findall(r"(top1|top5|loss) ([\d.]+)", printed)
        }

    network = torchvision.models.mobilenet_v2()
    load_weights(network, weights)
    network.eval()
    transform = transforms.Compose(
        [
            transforms.Resize(256),
            transforms.CenterCrop(224),
            transforms.ToTensor(),
            transforms.Normalize((0.5,) * 3, (0.5,) * 3),
        ]
    )
    synsets = (work / "synsets.txt").read_text().split()
    folder = torchvision.datasets.ImageFolder(str(work / "images" / "val"), transform)
    correct = torch.zeros(2)
    with torch.no_grad():
        for images, labels in torch.utils.data.DataLoader(folder, batch_size=50):
            truth = torch.tensor([synsets.index(folder.classes[label]) for label in labels])
            ranked = network(images).topk(5).indices == truth[:, None]
            correct += torch.stack([ranked[:, 0].sum(), ranked.sum()])
    plain = dict(zip(("top1", "top5"), (100 * correct / len(folder)).tolist()))
    return {"images": len(folder), **ours, "pil_and_torchvision": plain}


def distill(work: Path, weights: Path) -> dict[str, object]:
    """Train, kill in mid-epoch, resume; the losses of the first and the last logged steps, and the scores."""
    start = time.perf_counter()
    run = work / "runs" / "shufflenetv2_wsld"
    process = subprocess.Popen(command_line(work, weights), stdout=subprocess.DEVNULL, start_new_session=True)
    while process.poll() is None and not (run / "last.pt").exists():
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    resumed = re.search(r"resumes after step (\d+)", trainer(work, weights).stdout)
    rows = read_metrics(run)
    train, val = ([row for row in rows if row["kind"] == kind] for kind in ("train", "val"))
    return {
        "killed_by": -process.returncode,
        "resumed_after_step": int(resumed[1]) if resumed else None,
        "steps": [row["step"] for row in train],
        "loss": [round(row["loss"], 3) for row in train],
        "val_top1": [row["top1"] for row in val],
        "seconds": round(time.perf_counter() - start),
    }


def pack(work: Path, splits: list[str], listing: Sequence[str] = (), packing: Sequence[str] = ()) -> None:
    """List and pack `work/images` to `work/lmdb`, with more arguments for either tool."""
    lists, images = str(work / "lists"), str(work / "images")
    run("dataset/mk_img_list.py", "--image_path", images, "--output_path", lists, *listing)
    for split in splits:
        paths = ["--image_path", images, "--list_path", lists, "--output_path", str(work / "lmdb")]
        run("dataset/img2lmdb.py", *paths, "--split", split, *packing)


def trainer(work: Path, weights: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    """The trainer on this data, with more ``overrides``."""
    return run(*command_line(work, weights, *overrides)[1:])


def command_line(work: Path, weights: Path, *overrides: str) -> list[str]:
    """The trainer's command line."""
    settings = [f"data.data_path={work / 'lmdb'}", f"teachers.teacher.weights={weights}"]
    settings.append(f"train_params.output_path={work / 'runs'}")
    return [sys.executable, "train_with_distillation.py", "--cfg", CONFIG, *settings, *overrides]


def run(*command: str) -> subprocess.CompletedProcess[str]:
    """Run one of the project's scripts and read what it prints."""
    done = subprocess.run([sys.executable, *command], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise UsageError(f"`python {' '.join(command)}` ended with exit code {done.returncode}")
    return done


def show(name: str, values: dict[str, object]) -> None:
    """One JSON line."""
    print(json.dumps({"benchmark": name, **values}), flush=True)


if __name__ == "__main__":
    main()
