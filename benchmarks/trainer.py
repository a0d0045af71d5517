"""Images/s of whole training runs beside a plain loop of torchvision and torch's DataLoader, in one run.

    python -m benchmarks.trainer [--data FOLDER] [--copies 20] [--teacher resnet34] [--student resnet18] [--workers 16]

Photos in class folders are packed once under --work, small sets several times over. Every row is a run of the same
networks, crop, batch and loss (cross-entropy and KD), in the precision of --amp, compiled unless --eager is given:

    distilled     train_with_distillation.py with the teacher
    alone         train_with_distillation.py without one
    filling       with the teacher, whose outputs are stored as they come; its priors, and the epochs that they are made
                  of, before the first step
    stored        with what was stored, and no teacher
    loop          ImageFolder, DataLoader with as many processes, teacher, student, SGD: what a script would have
    loop alone    the same without the teacher
    step          that loop on one batch that is on the device already: as fast as any loader can make it
    step alone    the same without the teacher

`images_per_second` is the median over the epochs after the first, of `filling` over those that it fills; `waiting` the
share of the time that a run waited for data; `seconds` what the whole command took, with compilation and validation.
"""

from __future__ import annotations

import argparse
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from statistics import median

import torch
import torchvision
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

from benchmarks.common import check_counts, files_below, on_photos, run, show
from figures.curves import read_metrics
from stored.layouts import LayoutConfig
from utils.console import exit_with_its_code

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
ROWS = ("distilled", "alone", "filling", "stored", "loop", "loop alone", "step", "step alone")
_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


@exit_with_its_code
def main() -> None:
    """Pack, run and print a line of each."""
    options = parse()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    prepare(options)
    rows: dict[str, Callable[[], dict[str, float]]] = {
        "distilled": lambda: trained(options, "kd"),
        "alone": lambda: trained(options, "none"),
        "filling": lambda: trained(options, "kd", store=True, fresh=True),
        "stored": lambda: trained(options, "kd", store=True),
        "loop": lambda: looped(options, device, Folder(options, device), distils=True),
        "loop alone": lambda: looped(options, device, Folder(options, device), distils=False),
        "step": lambda: looped(options, device, one_batch(options, device), distils=True),
        "step alone": lambda: looped(options, device, one_batch(options, device), distils=False),
    }
    for row in options.rows or ROWS:
        torch.manual_seed(0)
        show("trainer", {"row": row, **rows[row](), "device": name, "pair": f"{options.teacher}/{options.student}"})


def parse() -> argparse.Namespace:
    """Options.

    Raises:
        UsageError: there are no photos, or a count is below 1.
    """
    parser = on_photos(__doc__, "benchmark_trainer")
    parser.add_argument("--teacher", default="resnet34", help="of torchvision; default: resnet34")
    parser.add_argument("--student", default="resnet18", help="of torchvision; default: resnet18")
    parser.add_argument("--rows", nargs="+", choices=ROWS, metavar="ROW", help="default: all")
    parser.add_argument("--copies", type=int, default=20, help="of each photo in an epoch (default: 20)")
    parser.add_argument("--epochs", type=int, default=12, help="the first does not count (default: 12)")
    parser.add_argument("--batch", type=int, default=256, help="images a step (default: 256)")
    parser.add_argument("--side", type=int, default=224, help="of the images, pixels (default: 224)")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="decoding processes (default: the cores)")
    parser.add_argument("--amp", choices=("bf16", "fp16", "off"), default="bf16", help="precision; default: bf16")
    parser.add_argument("--eager", action="store_true", help="do not compile")
    options = parser.parse_args()
    check_counts(**{name: getattr(options, name) for name in ("copies", "batch", "side", "workers")})
    check_counts(epochs=options.epochs - 1)
    files_below(options.data)
    return options


def prepare(options: argparse.Namespace) -> None:
    """Copy the photos and pack them, unless that is done; some of them validate."""
    images = options.work / "images"
    files = files_below(options.data)
    for split, chosen, copies in (("train", files, options.copies), ("val", files[::8], 1)):
        for path in chosen:
            for copy in range(copies):
                photo = images / split / path.parent.name / f"{copy}_{path.name}"
                photo.parent.mkdir(parents=True, exist_ok=True)
                if not photo.exists():
                    shutil.copyfile(path, photo)
    paths = ["--image_path", str(images), "--output_path"]
    run("dataset/mk_img_list.py", *paths, str(options.work / "lists"))
    torch.manual_seed(0)
    teacher = getattr(torchvision.models, options.teacher)(num_classes=_classes(options))
    torch.save(teacher.state_dict(), options.work / "teacher.pth")
    for split in ("train", "val"):
        lists = ["--list_path", str(options.work / "lists"), "--split", split]
        run("dataset/img2lmdb.py", *paths, str(options.work / "lmdb"), *lists)


def trained(options: argparse.Namespace, method: str, *, store: bool = False, fresh: bool = False) -> dict[str, float]:
    """A run of the trainer by a method of the table; with a ``store``, which is emptied first when ``fresh``."""
    begun, folder = time.perf_counter(), options.work / "store"
    words = [f"teacher={options.teacher}", f"teachers.teacher.weights={options.work / 'teacher.pth'}"]
    words.append("teachers.teacher.expect=0")
    if store:
        words.append(f"teachers.teacher.store={folder}")
        if fresh:
            shutil.rmtree(folder, ignore_errors=True)
    run(
        *("train_with_distillation.py", "--fresh", "--cfg", "configs/imagenet.py", f"method={method}"),
        *(f"student={options.student}", *(words if method != "none" else ())),
        *(f"name={method}", f"epochs={options.epochs}", "optim.milestones="),
        *(f"data.data_path={options.work / 'lmdb'}", f"data.batch_size={options.batch}"),
        *(f"data.num_workers={options.workers}", f"data.input_size={options.side}"),
        *(f"data.val_resize={options.side * 8 // 7}", f"train_params.output_path={options.work / 'runs'}"),
        *(f"train_params.amp={options.amp}", f"train_params.compile={not options.eager}"),
        *("train_params.print_freq=100000", "train_params.checkpoint_steps=0"),
    )
    rows = [row for row in read_metrics(options.work / "runs" / method) if "images_per_second" in row]
    rows = rows[LayoutConfig().views if fresh and options.epochs > LayoutConfig().views else 1 :]
    shown = {"images_per_second": median(row["images_per_second"] for row in rows)}
    shown |= {"waiting": median(row["data_wait"] for row in rows), "seconds": time.perf_counter() - begun}
    return {name: round(value, 3) for name, value in shown.items()}


def looped(
    options: argparse.Namespace, device: torch.device, batches: Iterable[tuple[Tensor, Tensor]], *, distils: bool
) -> dict[str, float]:
    """A training loop as scripts have it, over the same ``batches`` every epoch."""
    student, teacher = (
        getattr(torchvision.models, name)(num_classes=_classes(options)).to(device, memory_format=torch.channels_last)
        for name in (options.student, options.teacher)
    )
    teacher.requires_grad_(False).eval()
    step_forward, teach = (student, teacher) if options.eager else (torch.compile(student), torch.compile(teacher))
    optimizer = torch.optim.SGD(student.parameters(), 0.1, momentum=0.9, weight_decay=1e-4)
    precision = torch.autocast(device.type, _AUTOCAST[options.amp]) if options.amp != "off" else nullcontext()
    speeds, waits = [], []
    for _ in range(options.epochs):
        images_seen, begun, waited = 0, time.perf_counter(), 0.0
        for images, labels, wait in _timed(batches):
            waited += wait
            with precision:
                logits = step_forward(images)
                if distils:
                    with torch.no_grad():
                        target = teach(images)
            loss = F.cross_entropy(logits.float(), labels)
            if distils:
                loss = loss + 16 * F.kl_div(
                    F.log_softmax(logits.float() / 4, 1), F.softmax(target.float() / 4, 1), reduction="batchmean"
                )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            images_seen += len(images)
        loss.item()
        elapsed = time.perf_counter() - begun
        speeds.append(images_seen / elapsed)
        waits.append(waited / elapsed)
    return {"images_per_second": round(median(speeds[1:]), 1), "waiting": round(median(waits[1:]), 3)}


def _timed(batches: Iterable[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor, float]]:
    """Each batch, and how long it was waited for."""
    iterator, last = iter(batches), time.perf_counter()
    for images, labels in iterator:
        yield images, labels, time.perf_counter() - last
        last = time.perf_counter()


class Folder:
    """The photos by torch's DataLoader, as torchvision's references have them."""

    def __init__(self, options: argparse.Namespace, device: torch.device) -> None:
        crop = (transforms.RandomResizedCrop(options.side), transforms.RandomHorizontalFlip(), transforms.ToTensor())
        samples = datasets.ImageFolder(
            str(options.work / "images" / "train"), transforms.Compose([*crop, transforms.Normalize(MEAN, STD)])
        )
        self._device = device
        self._loader = DataLoader(
            samples,
            options.batch,
            shuffle=True,
            drop_last=True,
            num_workers=options.workers,
            pin_memory=device.type == "cuda",
            persistent_workers=True,
        )

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for images, labels in self._loader:
            on_device = images.to(self._device, non_blocking=True, memory_format=torch.channels_last)
            yield on_device, labels.to(self._device, non_blocking=True)


def one_batch(options: argparse.Namespace, device: torch.device) -> list[tuple[Tensor, Tensor]]:
    """An epoch of one batch over and over, on the device."""
    images = torch.randn(options.batch, 3, options.side, options.side, device=device)
    labels = torch.arange(options.batch, device=device) % _classes(options)
    epoch = options.copies * len(files_below(options.data)) // options.batch
    return [(images.contiguous(memory_format=torch.channels_last), labels)] * epoch


def _classes(options: argparse.Namespace) -> int:
    return len({path.parent for path in files_below(options.data)})


if __name__ == "__main__":
    main()
