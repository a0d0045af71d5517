"""Batches from a split to the device.

A batch is a dict of tensors, B samples of this rank:

    "images"  uint8 [B, 3, S, S], RGB, channels_last
    "labels"  int64 [B]
    "index"   int64 [B], position of each sample in its split
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from dataset import augment, order, views
from dataset.images import BadImage, decode, resize, resize_and_center_crop
from dataset.record import Record
from dataset.shards import INDEX, Samples, ShardReader
from dataset.sources.folder import ImageFolder
from dataset.sources.wsld import WsldReader, is_wsld_folder
from utils.errors import DataError, UsageError

_PREFETCH = 4  # batches a worker keeps ready


@dataclass(frozen=True)
class DataConfig:
    """Where the images are and how they are looked at."""

    data_path: str
    """folder that holds train and val: LMDB shards of img2lmdb.py, WSLD's LMDB folders, or plain class folders"""
    batch_size: int = 256
    """images a training step, over all ranks and accumulated parts"""
    num_workers: int = 8
    """decoding processes of each rank; 0 decodes in the training process"""
    train_data_type: Literal["lmdb", "img"] = "lmdb"
    """what data_path/train holds: LMDB or plain image folders"""
    val_data_type: Literal["lmdb", "img"] = "lmdb"
    """what data_path/val holds"""
    train_split: str = "train"
    """folder of the training split below data_path (train_256 after packing with --image_size 256)"""
    val_split: str = "val"
    """folder of the validation split below data_path"""
    input_size: int = 224
    """side of the square that the networks see, pixels"""
    type_of_data_aug: Literal["random_sized", "rand_scale", "none"] = "random_sized"
    """training crop: random_sized (RandomResizedCrop), rand_scale (random short side, random crop), none (as val)"""
    scale: tuple[float, float] = (0.08, 1.0)
    """random_sized: share of the image's area, lowest and highest"""
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """random_sized: width over height, lowest and highest"""
    rand_scale: tuple[int, int] = (256, 480)
    """rand_scale: shortest and longest short side, pixels"""
    flip: bool = True
    """mirror half of the training images"""
    color_jitter: float = 0.0
    """strength of brightness, contrast and saturation jitter (WSLD's data.color: 0.4); 0 is none"""
    val_resize: int = 256
    """validation: short side before the centre crop of input_size, pixels"""
    val_batch_size: int = 256
    """images a validation batch of each rank"""


def open_split(config: DataConfig, split: str, kind: str) -> Samples:
    """The samples of one split; ``kind`` is ``lmdb`` or ``img``.

    Raises:
        UsageError: the folder holds nothing of that kind.
        DataError: it does, and is damaged or unfinished.
    """
    root = Path(config.data_path).expanduser()
    folder = root / split
    if not folder.is_dir():
        raise UsageError(
            f"data.data_path: {folder} is not a folder; set data.data_path to the folder that holds {split}/"
        )
    if kind == "img":
        return ImageFolder(root, split)
    if (folder / INDEX).exists() or not is_wsld_folder(folder):
        return ShardReader(folder)
    return WsldReader(folder)


class TrainLoader:
    """Shuffled, augmented batches; the state is two numbers, the epoch and the batch."""

    def __init__(
        self, samples: Samples, config: DataConfig, seed: int, rank: int, world: int, device: torch.device
    ) -> None:
        if config.batch_size % world:
            raise UsageError(f"data.batch_size={config.batch_size} does not divide over {world} ranks")
        if len(samples) < config.batch_size:
            raise UsageError(f"data.batch_size={config.batch_size} exceeds the {len(samples)} training images")
        self.batches, self.batch_size = len(samples) // config.batch_size, config.batch_size
        self._share = (config.batch_size, rank, world)
        self._seed, self._samples, self._device = seed, len(samples), device
        self._sampler: list[tuple[int, np.ndarray]] = []
        self._loader = _loader(_TrainingBatches(samples, config, seed), self._sampler, config, device)

    def epoch(self, epoch: int, first: int = 0) -> Iterator[dict[str, Tensor]]:
        """The batches of ``epoch`` (from 0), from batch ``first`` on."""
        batch_size, rank, world = self._share
        batches = order.training_batches(self._seed, epoch, self._samples, batch_size, rank, world, first)
        self._sampler[:] = [(epoch, batch) for batch in batches]
        for batch in _named_errors(self._loader):
            batch = _to_device(batch, self._device)
            images = augment.flip(batch["images"], batch.pop("flip"))
            jitter = batch.pop("jitter", None)
            yield {**batch, "images": images if jitter is None else augment.color_jitter(images, jitter)}

    def close(self) -> None:
        """Stop the decoding processes."""
        _stop_workers(self._loader)


class EvalLoader:
    """Every sample of a split once over all ranks, resized and cropped at the centre."""

    def __init__(self, samples: Samples, config: DataConfig, rank: int, world: int, device: torch.device) -> None:
        self._device = device
        batches = list(order.evaluation_batches(len(samples), config.val_batch_size, rank, world))
        self._loader = _loader(_EvaluationBatches(samples, config), batches, config, device)

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        for batch in _named_errors(self._loader):
            yield _to_device(batch, self._device)

    def close(self) -> None:
        """Stop the decoding processes."""
        _stop_workers(self._loader)


class _TrainingBatches(Dataset):
    def __init__(self, samples: Samples, config: DataConfig, seed: int) -> None:
        self._samples, self._config, self._seed = samples, config, seed

    def __getitem__(self, item: tuple[int, np.ndarray]) -> dict[str, Tensor]:
        epoch, index = item
        config, side = self._config, self._config.input_size
        images, labels = _read(self._samples, index)
        sizes = np.array([image.shape[:2] for image in images])
        # One row of numbers a sample, and fixed columns: turning one augmentation off leaves the others' draws alone.
        numbers = views.uniform(self._seed, epoch, index, 44)
        if config.type_of_data_aug == "none":
            pixels = [resize_and_center_crop(image, config.val_resize, side) for image in images]
        else:
            if config.type_of_data_aug == "random_sized":
                windows = views.random_resized_crop(numbers[:, 4:], sizes, config.scale, config.ratio)
            else:
                windows = views.random_scale_crop(numbers[:, 4:7], sizes, config.rand_scale, side)
            pixels = [
                resize(image[top : top + height, left : left + width], side, side)
                for image, (top, left, height, width) in zip(images, windows, strict=True)
            ]
        batch = {**_tensors(pixels, labels, index), "flip": torch.from_numpy((numbers[:, 0] < 0.5) & config.flip)}
        if config.color_jitter:
            batch["jitter"] = torch.from_numpy(views.jitter_factors(numbers[:, 1:4], config.color_jitter))
        return batch


class _EvaluationBatches(Dataset):
    def __init__(self, samples: Samples, config: DataConfig) -> None:
        self._samples, self._config = samples, config

    def __getitem__(self, index: np.ndarray) -> dict[str, Tensor]:
        images, labels = _read(self._samples, index)
        side, crop = self._config.val_resize, self._config.input_size
        return _tensors([resize_and_center_crop(image, side, crop) for image in images], labels, index)


def _read(samples: Samples, index: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
    """Decoded images, uint8 [H, W, 3] each, and labels, int64 [B]."""
    images, labels = [], np.empty(len(index), np.int64)
    for row, sample in enumerate(index):
        record = samples.read(int(sample))
        images.append(_decode(record))
        if not isinstance(record.target, int) or not 0 <= record.target < len(samples.classes):
            raise DataError(f"{record.key}: {record.target!r:.80} is not a label in 0 to {len(samples.classes) - 1}")
        labels[row] = record.target
    return images, labels


def _decode(record: Record) -> np.ndarray:
    try:
        return decode(record.image)
    except BadImage as error:
        raise DataError(f"{record.key}: {error}; pack the split again, or leave the image out") from None


def _tensors(pixels: list[np.ndarray], labels: np.ndarray, index: np.ndarray) -> dict[str, Tensor]:
    images = torch.empty((len(pixels), *pixels[0].shape), dtype=torch.uint8)
    np.stack(pixels, out=images.numpy())
    return {"images": images, "labels": torch.from_numpy(labels), "index": torch.from_numpy(index)}


def _loader(batches: Dataset, sampler: list, config: DataConfig, device: torch.device) -> DataLoader:
    workers = config.num_workers
    return DataLoader(
        batches,
        batch_size=None,  # the dataset makes whole batches
        sampler=sampler,
        num_workers=workers,
        pin_memory=device.type == "cuda",
        persistent_workers=workers > 0,
        prefetch_factor=_PREFETCH if workers else None,
        worker_init_fn=_start_worker,
    )


def _stop_workers(loader: DataLoader) -> None:
    if loader._iterator is not None:  # persistent workers have no public end
        loader._iterator._shutdown_workers()  # type: ignore[attr-defined]


def _named_errors(loader: DataLoader) -> Iterator[dict[str, Tensor]]:
    try:
        yield from loader
    except DataError as error:  # a worker's arrives with its traceback as text before the message
        raise DataError(str(error).strip().splitlines()[-1].removeprefix("utils.errors.DataError: ")) from None


def _start_worker(_number: int) -> None:
    cv2.setNumThreads(0)  # one process a core already
    # Ctrl-C reaches a whole process group: in groups of their own, workers live until the trainer has saved its state.
    os.setpgrp()
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, signal.SIG_DFL)


def _to_device(batch: dict[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    batch = {name: tensor.to(device, non_blocking=True) for name, tensor in batch.items()}
    return {**batch, "images": batch["images"].permute(0, 3, 1, 2)}  # the bytes of [B, S, S, 3] are channels_last
