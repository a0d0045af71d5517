"""Images/s of training loaders over the same photos, interleaved in one run.

    pip install -e '.[benchmarks]'
    python -m benchmarks.loader --data /data/imagenet/train [--workers 0 2] [--rounds 5] [--plot loader.png]

Every loader gives the same: shuffled batches of 64, RandomResizedCrop to 224 and flip, uint8 unless its name says
otherwise. With 0 workers each decodes in its training process, on one core; with more, on that many cores. Rounds go
through the loaders in turn, those that wait stand still, and the median counts. A loader whose package is not installed
is left out with a line.

The data is a folder of class folders with original JPEGs; it is packed once under --work.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack, suppress
from multiprocessing import Pipe, get_context
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Literal

import cv2
import lmdb
import matplotlib.pyplot as plt
import msgpack
import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import datasets, transforms
from torchvision import io as vision_io
from torchvision.transforms import v2

from dataset.loader import DataConfig, TrainLoader, open_split
from dataset.shards import ShardReader
from utils.console import exit_with_its_code, progress

SIDE, BATCH = 224, 64
Epochs = Callable[[int], Iterable[object]]  # an epoch's number -> its batches


@exit_with_its_code
def main() -> None:
    """Pack, measure, print and draw."""
    options = parse()
    prepare(options.data, options.work)
    rows = [row for workers in options.workers for row in measure(options, workers)]
    for row in rows:
        print(json.dumps({**row, "machine": machine()}))
    draw(rows, options.plot)


def measure(options: argparse.Namespace, workers: int) -> list[dict[str, object]]:
    """One row for each loader: images/s of each round, their median, and the ratio to torchvision's."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: max(1, workers)])
    images = len(datasets.ImageFolder(str(options.data)).samples) // BATCH * BATCH
    with ExitStack() as stack:
        stack.callback(os.sched_setaffinity, 0, os.sched_getaffinity(0) | set(range(os.cpu_count() or 1)))
        started = [stack.enter_context(Runner(name, options, workers)) for name in LOADERS]
        runners = [runner for runner in started if runner.works]
        seconds: dict[str, list[float]] = {runner.name: [] for runner in runners}
        for number in progress(iterable=range(-1, options.rounds), desc=f"{workers} workers", unit="round"):
            for runner in runners:
                taken = runner.epoch(number + 1)
                if number >= 0:  # the first round warms up
                    seconds[runner.name].append(taken)
    base = median(next(iter(seconds.values())))
    return [
        {
            "benchmark": "loader",
            "loader": name,
            "workers": workers,
            "images_per_second": round(images / median(times)),
            "ratio": round(base / median(times), 2),
            "slowest_and_fastest_round": [round(images / max(times)), round(images / min(times))],
        }
        for name, times in seconds.items()
    ]


class Runner:
    """A loader in a process of its own, which stands still while others are measured."""

    def __init__(self, name: str, options: argparse.Namespace, workers: int) -> None:
        self.name = name
        self._control, theirs = Pipe()
        self._process = get_context("spawn").Process(target=serve, args=(theirs, name, options, workers), daemon=False)
        self._process.start()
        theirs.close()
        missing = self._control.recv()
        self.works = missing is None
        if missing:
            print(f"{name}: left out ({missing})", file=sys.stderr)
        self._signal(signal.SIGSTOP)

    def epoch(self, number: int) -> float:
        """Seconds of one epoch."""
        self._signal(signal.SIGCONT)
        self._control.send(number)
        seconds = self._control.recv()
        self._signal(signal.SIGSTOP)
        return seconds

    def __enter__(self) -> Runner:
        return self

    def __exit__(self, *_: object) -> None:
        self._signal(signal.SIGCONT)
        self._control.close()
        self._process.join()

    def _signal(self, number: int) -> None:
        if self._process.is_alive():
            os.kill(self._process.pid or 0, number)


def serve(control: Connection, name: str, options: argparse.Namespace, workers: int) -> None:
    """Run the epochs that are asked for."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    try:
        epochs = LOADERS[name](options, workers)
    except ImportError as error:
        control.send(str(error))
        return
    control.send(None)
    with suppress(EOFError):
        while True:
            number = control.recv()
            start = time.perf_counter()
            for _batch in epochs(number):
                pass
            control.send(time.perf_counter() - start)


def limbeck(work: Path, workers: int, resize: Literal["antialias", "linear"]) -> Epochs:
    """This project's loader, as `train_with_distillation.py` uses it."""
    config = DataConfig(str(work / "lmdb"), batch_size=BATCH, num_workers=workers, resize=resize)
    samples = open_split(config, "train", "lmdb")
    return TrainLoader(samples, config, seed=0, rank=0, world=1, device=torch.device("cpu")).epoch


def torchvision_folder(data: Path, workers: int, *, normalized: bool) -> Epochs:
    """ImageFolder with PIL, as most tutorials have it."""
    last = [transforms.PILToTensor()]
    if normalized:
        last = [transforms.ToTensor(), transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))]
    views = [transforms.RandomResizedCrop(SIDE), transforms.RandomHorizontalFlip(), *last]
    return each_sample(datasets.ImageFolder(str(data), transforms.Compose(views)), workers)


def each_sample(samples: Dataset, workers: int) -> Epochs:
    """A torch DataLoader over single samples."""
    loader = DataLoader(
        samples,
        batch_size=BATCH,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=workers > 0,
        worker_init_fn=one_thread,
    )
    return lambda _epoch: loader


def one_thread(_worker: int) -> None:
    """A decoding process has one core."""
    cv2.setNumThreads(0)


class TorchvisionIo(Dataset):
    """torchvision's own JPEG decoder and tensor transforms."""

    def __init__(self, data: Path) -> None:
        self._rows = datasets.ImageFolder(str(data)).samples
        self._views = v2.Compose([v2.RandomResizedCrop(SIDE, antialias=True), v2.RandomHorizontalFlip()])

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        path, label = self._rows[index]
        image = vision_io.decode_image(vision_io.read_file(path), mode="RGB")
        return self._views(image), label


class WsldDesign(Dataset):
    """The design of WSLD's loader: msgpack in one LMDB folder, decoded by PIL."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._transaction: lmdb.Transaction | None = None
        self._views = transforms.Compose(
            [transforms.RandomResizedCrop(SIDE), transforms.RandomHorizontalFlip(), transforms.PILToTensor()]
        )
        with lmdb.open(str(path), readonly=True, lock=False) as environment, environment.begin() as transaction:
            self._keys = list(transaction.cursor().iternext(values=False))

    def __len__(self) -> int:
        return len(self._keys)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        if self._transaction is None:
            environment = lmdb.open(str(self._path), readonly=True, lock=False, readahead=False)
            self._transaction = environment.begin()
        blob = msgpack.unpackb(self._transaction.get(self._keys[index]))
        return self._views(Image.open(io.BytesIO(blob[:-2])).convert("RGB")), int.from_bytes(blob[-2:], "little")


class FullDecode(Dataset):
    """LMDB with OpenCV decoding whole images."""

    def __init__(self, path: Path) -> None:
        self._reader = ShardReader(path)

    def __len__(self) -> int:
        return len(self._reader)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        record = self._reader.read(index)
        return opencv_view(record.image), record.target  # type: ignore[return-value]


def opencv_view(data: bytes) -> torch.Tensor:
    """Decode the whole image, crop and resize it with OpenCV, flip half of them; uint8 [3, SIDE, SIDE]."""
    flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    assert pixels is not None
    shape = torch.empty(1).expand(3, *pixels.shape[:2])
    top, left, height, width = transforms.RandomResizedCrop.get_params(shape, [0.08, 1.0], [3 / 4, 4 / 3])
    view = cv2.resize(pixels[top : top + height, left : left + width], (SIDE, SIDE))
    if torch.rand(()) < 0.5:
        view = cv2.flip(view, 1)
    return torch.from_numpy(view).permute(2, 0, 1)


def web_dataset(tar: Path, workers: int) -> Epochs:
    """WebDataset over one tar file a worker, OpenCV decoding whole images."""
    import webdataset

    pipeline = (
        webdataset.WebDataset([str(tar)] * max(1, workers), shardshuffle=False, nodesplitter=None)
        .shuffle(1000)
        .to_tuple("jpg", "cls")
        .map_tuple(opencv_view, int)
        .batched(BATCH, partial=False)
    )
    if workers:  # every worker reads the whole file: half of it each
        with tarfile.open(tar) as content:
            pipeline = pipeline.with_epoch(sum(1 for _ in content) // 2 // BATCH // workers)
    loader = DataLoader(pipeline, batch_size=None, num_workers=workers, persistent_workers=workers > 0)
    return lambda _epoch: loader


def dali(data: Path, workers: int) -> Epochs:
    """DALI on the CPU with its decoder that knows the crop."""
    from nvidia.dali import fn, pipeline_def, types
    from nvidia.dali.plugin.pytorch import DALIGenericIterator, LastBatchPolicy

    @pipeline_def(batch_size=BATCH, num_threads=max(1, workers), device_id=None)
    def pipeline() -> tuple:
        jpegs, labels = fn.readers.file(file_root=str(data), random_shuffle=True, name="reader")
        images = fn.decoders.image_random_crop(
            jpegs, device="cpu", random_area=[0.08, 1.0], random_aspect_ratio=[3 / 4, 4 / 3]
        )
        images = fn.resize(images, size=[SIDE, SIDE], interp_type=types.INTERP_TRIANGULAR)
        return fn.flip(images, horizontal=fn.random.coin_flip()), labels

    iterator = DALIGenericIterator(
        [pipeline()],
        ["images", "labels"],
        reader_name="reader",
        last_batch_policy=LastBatchPolicy.DROP,
        auto_reset=True,
    )
    return lambda _epoch: iterator


def ffcv(data: Path, beton: Path, workers: int) -> Epochs:
    """FFCV with JPEG at the original size; it re-encodes what it packs."""
    from ffcv.fields import IntField, RGBImageField
    from ffcv.fields.decoders import IntDecoder, RandomResizedCropRGBImageDecoder
    from ffcv.loader import Loader, OrderOption
    from ffcv.transforms import RandomHorizontalFlip, ToTensor
    from ffcv.writer import DatasetWriter

    if not beton.exists():
        fields = {"image": RGBImageField(write_mode="jpg", jpeg_quality=90), "label": IntField()}
        DatasetWriter(str(beton), fields, num_workers=2).from_indexed_dataset(datasets.ImageFolder(str(data)))
    loader = Loader(
        str(beton),
        batch_size=BATCH,
        num_workers=max(1, workers),
        order=OrderOption.RANDOM,
        drop_last=True,
        pipelines={
            "image": [RandomResizedCropRGBImageDecoder((SIDE, SIDE)), RandomHorizontalFlip(), ToTensor()],
            "label": [IntDecoder(), ToTensor()],
        },
    )
    return lambda _epoch: loader


def prepare(data: Path, work: Path) -> None:
    """Pack the photos for every loader that reads packed data, unless that is done."""
    (work / "images").mkdir(parents=True, exist_ok=True)
    link = work / "images" / "train"
    if not link.exists():
        link.symlink_to(data.resolve())
    paths = ["--image_path", str(work / "images")]
    run("dataset/mk_img_list.py", *paths, "--output_path", str(work / "lists"))
    paths += ["--list_path", str(work / "lists"), "--split", "train"]
    run("dataset/img2lmdb.py", *paths, "--output_path", str(work / "lmdb"))
    run("dataset/img2lmdb.py", *paths, "--output_path", str(work / "lmdb_untiled"), "--no_tiles")
    rows = datasets.ImageFolder(str(data)).samples
    if not (work / "wsld.lmdb").exists():
        with lmdb.open(str(work / "wsld.lmdb"), map_size=1 << 40) as environment, environment.begin(write=True) as out:
            for path, label in rows:
                out.put(path.encode()[-500:], msgpack.packb(Path(path).read_bytes() + label.to_bytes(2, "little")))
    if not (work / "train.tar").exists():
        with tarfile.open(work / "train.tar", "w") as tar:
            for number, (path, label) in enumerate(rows):
                for suffix, content in (("jpg", Path(path).read_bytes()), ("cls", str(label).encode())):
                    entry = tarfile.TarInfo(f"{number:08d}.{suffix}")
                    entry.size = len(content)
                    tar.addfile(entry, io.BytesIO(content))


def run(*command: str) -> None:
    """One of the project's scripts."""
    subprocess.run([sys.executable, *command], check=True, stdout=subprocess.DEVNULL)


def machine() -> dict[str, object]:
    """What it ran on."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
    return {"cpu": model, "cores": os.cpu_count(), "torch": torch.__version__, "opencv": cv2.__version__}


# torchvision's first: the others are ratios to it.
LOADERS: dict[str, Callable[[argparse.Namespace, int], Epochs]] = {
    "torchvision, PIL": lambda options, workers: torchvision_folder(options.data, workers, normalized=False),
    "torchvision, PIL, ToTensor + Normalize": lambda options, workers: torchvision_folder(
        options.data, workers, normalized=True
    ),
    "torchvision.io + v2": lambda options, workers: each_sample(TorchvisionIo(options.data), workers),
    "WSLD's design: LMDB, PIL": lambda options, workers: each_sample(WsldDesign(options.work / "wsld.lmdb"), workers),
    "LMDB + OpenCV, full decode": lambda options, workers: each_sample(
        FullDecode(options.work / "lmdb_untiled" / "train"), workers
    ),
    "WebDataset + OpenCV": lambda options, workers: web_dataset(options.work / "train.tar", workers),
    "DALI, CPU": lambda options, workers: dali(options.data, workers),
    "FFCV, original size, JPEG 90": lambda options, workers: ffcv(options.data, options.work / "train.beton", workers),
    "Limbeck": lambda options, workers: limbeck(options.work, workers, "antialias"),
    "Limbeck, linear resize": lambda options, workers: limbeck(options.work, workers, "linear"),
}


def draw(rows: list[dict[str, object]], path: Path) -> None:
    """Bars of images/s, one panel for each number of workers."""
    counts = sorted({row["workers"] for row in rows})  # type: ignore[type-var]
    figure, axes = plt.subplots(len(counts), 1, figsize=(9, 3.6 * len(counts)), squeeze=False)
    for axis, count in zip(axes[:, 0], counts):
        shown = [row for row in rows if row["workers"] == count][::-1]
        colours = ["tab:orange" if str(row["loader"]).startswith("Limbeck") else "tab:gray" for row in shown]
        bars = axis.barh([row["loader"] for row in shown], [row["images_per_second"] for row in shown], color=colours)
        axis.bar_label(bars, [f"{row['ratio']} x" for row in shown], padding=3)
        axis.set(xlabel="images/s", title="one core" if not count else f"{count} workers")
        axis.margins(x=0.1)
    figure.tight_layout()
    figure.savefig(path, dpi=150)
    print(f"Plot: {path}", file=sys.stderr)


def parse() -> argparse.Namespace:
    """The command line."""
    default = Path(os.environ.get("LIMBECK_DATA", "../shared/data")) / "imagenet200" / "images"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=default, help="folder of class folders with JPEG files")
    parser.add_argument("--work", type=Path, default=Path("runs/benchmark_loader"), help="where packed copies go")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--plot", type=Path, default=Path("runs/benchmark_loader/loader.png"))
    return parser.parse_args()


if __name__ == "__main__":
    main()
