"""The loaders of `benchmarks.loader`, each a function of the options and the number of workers, and what they read."""

from __future__ import annotations

import argparse
import io
import shutil
import tarfile
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Literal

import cv2
import lmdb
import msgpack
import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import datasets, transforms
from torchvision import io as vision_io
from torchvision.transforms import v2

from benchmarks.common import run
from dataset.loader import DataConfig, EvalLoader, TrainLoader, open_split
from dataset.store.reader import ShardReader

SIDE, BATCH = 224, 64
Epochs = Callable[[int], Iterable[object]]  # an epoch's number -> its batches


def limbeck(options: argparse.Namespace, workers: int, resize: Literal["antialias", "linear"] = "antialias") -> Epochs:
    """This project's training batches, as `train_with_distillation.py` uses them."""
    config = DataConfig(str(options.work / "lmdb"), batch_size=BATCH, num_workers=workers, resize=resize)
    samples = open_split(config, "train", "lmdb")
    return TrainLoader(samples, config, seed=0, rank=0, world=1, device=torch.device("cpu")).epoch


def limbeck_evaluation(options: argparse.Namespace, workers: int) -> Epochs:
    """This project's evaluation batches."""
    config = DataConfig(str(options.work / "lmdb"), val_batch_size=BATCH, num_workers=workers)
    samples = open_split(config, "train", "lmdb")
    loader = EvalLoader(samples, config, rank=0, world=1, device=torch.device("cpu"))
    return lambda _epoch: loader


def pil_folder(options: argparse.Namespace, *steps: Callable) -> Dataset:
    """ImageFolder with PIL, as most tutorials have it."""
    return datasets.ImageFolder(str(copies_of(options)), transforms.Compose(steps))


def each_sample(samples: Dataset, workers: int, *, train: bool = True) -> Epochs:
    """A torch DataLoader over single samples: shuffled and in whole batches, or all in order."""
    loader = DataLoader(
        samples,
        batch_size=BATCH,
        shuffle=train,
        drop_last=train,
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

    def __init__(self, options: argparse.Namespace, *steps: Callable) -> None:
        self._rows = datasets.ImageFolder(str(copies_of(options))).samples
        self._transform = v2.Compose(steps)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        path, label = self._rows[index]
        image = vision_io.decode_image(vision_io.read_file(path), mode="RGB")
        return self._transform(image), label


class WsldDesign(Dataset):
    """The design of WSLD's loader: msgpack in one LMDB folder, decoded by PIL."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._path = options.work / "wsld.lmdb"
        self._transaction: lmdb.Transaction | None = None
        self._transform = transforms.Compose(PIL_TRAIN)
        with lmdb.open(str(self._path), readonly=True, lock=False) as opened, opened.begin() as transaction:
            self._keys = list(transaction.cursor().iternext(values=False))

    def __len__(self) -> int:
        return len(self._keys)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        if self._transaction is None:
            environment = lmdb.open(str(self._path), readonly=True, lock=False, readahead=False)
            self._transaction = environment.begin()
        blob = msgpack.unpackb(self._transaction.get(self._keys[index]))
        return self._transform(Image.open(io.BytesIO(blob[:-2])).convert("RGB")), int.from_bytes(blob[-2:], "little")


class FullDecode(Dataset):
    """LMDB with OpenCV decoding whole images."""

    def __init__(self, options: argparse.Namespace, crop: Callable[[np.ndarray], np.ndarray]) -> None:
        self._reader, self._crop = ShardReader(options.work / "lmdb_untiled" / "train"), crop

    def __len__(self) -> int:
        return len(self._reader)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        record = self._reader.read(index)
        return opencv_crop(record.image, self._crop), record.target  # type: ignore[return-value]


def opencv_crop(data: bytes, crop: Callable[[np.ndarray], np.ndarray]) -> torch.Tensor:
    """Decode the whole image and crop it with OpenCV; uint8 [3, SIDE, SIDE]."""
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)
    assert pixels is not None
    return torch.from_numpy(crop(pixels)).permute(2, 0, 1)


def opencv_train(pixels: np.ndarray) -> np.ndarray:
    """RandomResizedCrop and flip, without antialiasing."""
    shape = torch.empty(1).expand(3, *pixels.shape[:2])
    top, left, height, width = transforms.RandomResizedCrop.get_params(shape, [0.08, 1.0], [3 / 4, 4 / 3])
    crop = cv2.resize(pixels[top : top + height, left : left + width], (SIDE, SIDE))
    return cv2.flip(crop, 1) if torch.rand(()) < 0.5 else crop


def opencv_evaluation(pixels: np.ndarray) -> np.ndarray:
    """Resize 256 and CenterCrop, without antialiasing."""
    height, width = pixels.shape[:2]
    scale = 256 / min(height, width)
    resized = cv2.resize(pixels, (round(width * scale), round(height * scale)))
    top, left = (resized.shape[0] - SIDE) // 2, (resized.shape[1] - SIDE) // 2
    return np.ascontiguousarray(resized[top : top + SIDE, left : left + SIDE])


def web_dataset(options: argparse.Namespace, workers: int) -> Epochs:
    """WebDataset, OpenCV decoding whole images."""
    import webdataset

    tar = str(options.work / "train.tar")
    pipeline = (
        webdataset.WebDataset([tar] * max(1, workers), shardshuffle=False, nodesplitter=None)
        .shuffle(1000)
        .to_tuple("jpg", "cls")
        .map_tuple(partial(opencv_crop, crop=opencv_train), int)
        .batched(BATCH, partial=False)
    )
    if workers:  # every worker reads the whole file: its share of each
        images = len(datasets.ImageFolder(str(copies_of(options))).samples)
        pipeline = pipeline.with_epoch(images // BATCH // workers)
    loader = DataLoader(pipeline, batch_size=None, num_workers=workers, persistent_workers=workers > 0)
    return lambda _epoch: loader


def dali(options: argparse.Namespace, workers: int) -> Epochs:
    """DALI on the CPU with its decoder that knows the crop."""
    from nvidia.dali import fn, pipeline_def, types
    from nvidia.dali.plugin.pytorch import DALIGenericIterator, LastBatchPolicy

    @pipeline_def(batch_size=BATCH, num_threads=max(1, workers), device_id=None)
    def pipeline() -> tuple:
        jpegs, labels = fn.readers.file(file_root=str(copies_of(options)), random_shuffle=True, name="reader")
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


def ffcv(options: argparse.Namespace, workers: int) -> Epochs:
    """FFCV with JPEG at the original size; it re-encodes what it packs."""
    from ffcv.fields import IntField, RGBImageField
    from ffcv.fields.decoders import IntDecoder, RandomResizedCropRGBImageDecoder
    from ffcv.loader import Loader, OrderOption
    from ffcv.transforms import RandomHorizontalFlip, ToTensor
    from ffcv.writer import DatasetWriter

    beton = options.work / "train.beton"
    if not beton.exists():
        fields = {"image": RGBImageField(write_mode="jpg", jpeg_quality=90), "label": IntField()}
        folder = datasets.ImageFolder(str(copies_of(options)))
        DatasetWriter(str(beton), fields, num_workers=2).from_indexed_dataset(folder)
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


def copies_of(options: argparse.Namespace) -> Path:
    """The photos, each --copies times."""
    return options.work / f"{options.copies}_copies" / "train"


def prepare(options: argparse.Namespace) -> None:
    """Copy the photos, and pack them for every loader that reads packed data, unless that is done."""
    options.work = options.work / f"{options.data.resolve().name}_{options.copies}"
    for path in options.data.glob("*/*"):
        for copy in range(options.copies):
            photo = copies_of(options) / path.parent.name / f"{copy}_{path.name}"
            photo.parent.mkdir(parents=True, exist_ok=True)
            if not photo.exists():
                shutil.copyfile(path, photo)  # a link to another file would count once
    paths = ["--image_path", str(copies_of(options).parent)]
    run("dataset/mk_img_list.py", *paths, "--output_path", str(options.work / "lists"))
    paths += ["--list_path", str(options.work / "lists"), "--split", "train"]
    run("dataset/img2lmdb.py", *paths, "--output_path", str(options.work / "lmdb"))
    run("dataset/img2lmdb.py", *paths, "--output_path", str(options.work / "lmdb_untiled"), "--no_tiles")
    rows = datasets.ImageFolder(str(copies_of(options))).samples
    wsld, tar_file = options.work / "wsld.lmdb", options.work / "train.tar"
    if not wsld.exists():
        with lmdb.open(str(wsld), map_size=1 << 40) as environment, environment.begin(write=True) as out:
            for path, label in rows:
                out.put(path.encode()[-500:], msgpack.packb(Path(path).read_bytes() + label.to_bytes(2, "little")))
    if not tar_file.exists():
        with tarfile.open(tar_file, "w") as tar:
            for number, (path, label) in enumerate(rows):
                for suffix, content in (("jpg", Path(path).read_bytes()), ("cls", str(label).encode())):
                    entry = tarfile.TarInfo(f"{number:08d}.{suffix}")
                    entry.size = len(content)
                    tar.addfile(entry, io.BytesIO(content))


PIL_TRAIN = (transforms.RandomResizedCrop(SIDE), transforms.RandomHorizontalFlip(), transforms.PILToTensor())
NORMALIZED = (
    *PIL_TRAIN[:2],
    transforms.ToTensor(),
    transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
)
V2_TRAIN = (v2.RandomResizedCrop(SIDE, antialias=True), v2.RandomHorizontalFlip())
PIL_EVALUATION = (transforms.Resize(256), transforms.CenterCrop(SIDE), transforms.PILToTensor())
V2_EVALUATION = (v2.Resize(256, antialias=True), v2.CenterCrop(SIDE))

# torchvision's first: the others are ratios to it.
LOADERS: dict[str, dict[str, Callable[[argparse.Namespace, int], Epochs]]] = {
    "train": {
        "torchvision, PIL": lambda options, workers: each_sample(pil_folder(options, *PIL_TRAIN), workers),
        "torchvision, PIL, ToTensor + Normalize": lambda options, workers: each_sample(
            pil_folder(options, *NORMALIZED), workers
        ),
        "torchvision.io + v2": lambda options, workers: each_sample(TorchvisionIo(options, *V2_TRAIN), workers),
        "WSLD's design: LMDB, PIL": lambda options, workers: each_sample(WsldDesign(options), workers),
        "LMDB + OpenCV, full decode": lambda options, workers: each_sample(FullDecode(options, opencv_train), workers),
        "WebDataset + OpenCV": web_dataset,
        "DALI, CPU": dali,
        "FFCV, original size, JPEG 90": ffcv,
        "Limbeck": limbeck,
        "Limbeck, resize=linear": lambda options, workers: limbeck(options, workers, "linear"),
    },
    "evaluation": {
        "torchvision, PIL": lambda options, workers: each_sample(
            pil_folder(options, *PIL_EVALUATION), workers, train=False
        ),
        "torchvision.io + v2": lambda options, workers: each_sample(
            TorchvisionIo(options, *V2_EVALUATION), workers, train=False
        ),
        "LMDB + OpenCV, full decode": lambda options, workers: each_sample(
            FullDecode(options, opencv_evaluation), workers, train=False
        ),
        "Limbeck": limbeck_evaluation,
    },
}
