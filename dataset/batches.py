"""From sample numbers to pixels in place: what a decoding process does. Without torch, so that it starts fast.

A batch is a dict of arrays, B samples: "images" uint8 [B, S, S, 3] RGB, "labels" int64 [B], "index" int64 [B] (its
position in the split, -1 for a sample that could not be read), and for training with colour jitter "jitter" float32
[B, 3].
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import cv2
import numpy as np

from dataset import views
from dataset.images import center_view, decode, decode_window, image_size
from dataset.raw import padded_window
from dataset.record import Record
from dataset.resize import resample, taps
from dataset.scratch import scratch
from dataset.shards import Samples
from utils.errors import DataError, UsageError
from utils.settings import about, check, setting, show

_INTERPOLATION = {"linear": cv2.INTER_LINEAR, "area": cv2.INTER_AREA}

Batch = dict[str, np.ndarray]


@dataclass(frozen=True)
class DataConfig:
    """Where the images are and how they are looked at."""

    data_path: str = field(metadata=about(affects_result=False))
    """what holds train and val: LMDB shards of img2lmdb.py (a folder, or a URL such as s3://bucket/imagenet), WSLD's
    LMDB folders, or plain class folders"""
    batch_size: int = setting(256, least=1, also=("bs", "b", "batch"))
    """images a training step, over all ranks and accumulated parts"""
    num_workers: int = setting(8, least=0, most=1024, affects_result=False, also=("workers", "j"))
    """decoding processes of each rank; 0 decodes in the training process"""
    train_data_type: Literal["lmdb", "img"] = "lmdb"
    """what data_path/train holds: LMDB or plain image folders"""
    val_data_type: Literal["lmdb", "img"] = "lmdb"
    """what data_path/val holds"""
    train_split: str = "train"
    """folder of the training split below data_path (train_256 after packing with --image_size 256)"""
    val_split: str = "val"
    """folder of the validation split below data_path"""
    input_size: int = setting(224, least=1, most=16384, also=("img_size", "image_size", "crop_size"))
    """side of the square that the networks see, pixels"""
    type_of_data_aug: Literal["random_sized", "rand_scale", "pad_crop", "none"] = "random_sized"
    """training crop: random_sized (RandomResizedCrop), rand_scale (random short side, random crop), pad_crop (random
    crop of the image in a black frame: CIFAR's), none (as val)"""
    scale: tuple[float, float] = setting(
        (0.08, 1.0), above=0, most=1, rising=True, used_with={"type_of_data_aug": ("random_sized",)}
    )
    """random_sized: share of the image's area, lowest and highest"""
    ratio: tuple[float, float] = setting(
        (3 / 4, 4 / 3), least=0.001, most=1000, rising=True, used_with={"type_of_data_aug": ("random_sized",)}
    )
    """random_sized: width over height, lowest and highest"""
    rand_scale: tuple[int, int] = setting(
        (256, 480), least=1, most=16384, rising=True, used_with={"type_of_data_aug": ("rand_scale",)}
    )
    """rand_scale: shortest and longest short side, pixels"""
    pad: int = setting(4, least=0, most=16384, used_with={"type_of_data_aug": ("pad_crop",)})
    """pad_crop: width of the frame, pixels"""
    resize: Literal["antialias", "area", "linear"] = "antialias"
    """training: antialias (Pillow's bilinear), or OpenCV's area or linear, which aliases and is the fastest"""
    flip: bool = True
    """mirror half of the training images"""
    color_jitter: float = setting(0.0, least=0, most=100)
    """strength of brightness, contrast and saturation jitter (WSLD's data.color: 0.4); 0 is none"""
    mixup: float = setting(0.0, least=0, most=1000)
    """alpha of mixup: images of a batch are blended in shares drawn from Beta(alpha, alpha); 0 is none"""
    cutmix: float = setting(0.0, least=0, most=1000)
    """alpha of cutmix: a box of another image, of a share drawn likewise; with both, each batch has one of them"""
    strong_view: bool = False
    """also give each training image in a strongly distorted view (RandAugment, cutout), for mlkd and crld"""
    order: Literal["shuffle", "blocks"] = "shuffle"
    """training: shuffle the whole split, or blocks of neighbouring records, for data larger than memory or the cache"""
    open_shards: int = setting(16, least=1, used_with={"order": ("blocks",)})
    """order=blocks: shards that are read at a time; pack with --shuffle, or each holds few classes"""
    cache_path: str = setting("~/.cache/limbeck", affects_result=False)
    """data behind a URL: folder of this machine for the shards in use, shared by all ranks"""
    cache_gb: float = setting(200.0, above=0, most=10**9, affects_result=False)
    """data behind a URL: size of that folder, 10^9 bytes"""
    val_resize: int = setting(256, least=1, most=16384)
    """validation: short side before the centre crop of input_size, pixels"""
    val_batch_size: int = setting(256, least=1, affects_result=False)
    """images a validation batch of each rank"""
    on_fault: Literal["stop", "skip"] = setting("stop", affects_result=False)
    """a damaged record, or a decoding process that dies or hangs: stop the run, or report it and go on without"""
    worker_timeout: float = setting(300.0, above=0, affects_result=False)
    """seconds on one image after which a decoding process counts as hanging"""

    def check(self) -> None:
        """Raises UsageError where a value is out of its range, or two do not go together."""
        check(self, "data.")
        if self.type_of_data_aug == "rand_scale" and self.rand_scale[0] < self.input_size:
            raise UsageError(f"data.rand_scale={show(self.rand_scale)}: at least data.input_size={self.input_size}")
        if self.strong_view and (self.mixup or self.cutmix):
            raise UsageError("data.strong_view shows each image twice, not mixed: set data.mixup=0 data.cutmix=0")


@dataclass(frozen=True)
class BatchMaker:
    """Fills batches of one split, for training with a seed, for evaluation without."""

    samples: Samples
    config: DataConfig
    seed: int | None

    def layout(self, count: int) -> dict[str, tuple[type, tuple[int, ...]]]:
        """Type and shape of each array of a batch of ``count`` samples."""
        side = self.config.input_size
        arrays: dict[str, tuple[type, tuple[int, ...]]] = {
            "images": (np.uint8, (count, side, side, 3)),
            "labels": (np.int64, (count,)),
            "index": (np.int64, (count,)),
        }
        if self.seed is not None and self.config.color_jitter:
            arrays["jitter"] = (np.float32, (count, 3))
        return arrays

    def fill(self, batch: Batch, rows: range, epoch: int, watch: Callable[[int], None]) -> list[str]:
        """Fill ``rows`` of a batch whose "index" is set; calls ``watch`` with each row before it is worked on.

        Returns:
            A line for each sample that could not be read, where the page says that such are skipped.

        Raises:
            DataError: a sample cannot be read, where the page says to stop.
        """
        records: list[Record | None] = []
        remarks: list[str] = []
        read = getattr(self.samples, "view", self.samples.read)
        for row in rows:
            watch(row)
            try:
                sample = read(int(batch["index"][row]))
                batch["labels"][row] = self._label(sample)
                records.append(sample)
            except DataError as error:
                records.append(None)
                self._skip(batch, row, error, remarks)
        draw = self._view if self.seed is None else self._draw(batch, rows, epoch, records)
        for row, record in zip(rows, records, strict=True):
            if record is not None:
                watch(row)
                try:
                    draw(row - rows.start, record, batch["images"][row])
                except DataError as error:
                    named = f"{record.key}: {error}; pack the split again, or leave the image out"
                    self._skip(batch, row, DataError(named), remarks)
        return remarks

    def _skip(self, batch: Batch, row: int, error: DataError, remarks: list[str]) -> None:
        if self.config.on_fault == "stop":
            raise error from None
        remarks.append(str(error))
        batch["index"][row] = -1

    def _label(self, record: Record) -> int:
        if not isinstance(record.target, int) or not 0 <= record.target < len(self.samples.classes):
            most = len(self.samples.classes) - 1
            raise DataError(f"{record.key}: {record.target!r:.80} is not a label in 0 to {most}")
        return record.target

    def _view(self, _number: int, record: Record, out: np.ndarray) -> None:
        config = self.config
        center_view(record.image, image_size(record.image), config.val_resize, config.input_size, out)

    def _draw(
        self, batch: Batch, rows: range, epoch: int, records: list[Record | None]
    ) -> Callable[[int, Record, np.ndarray], None]:
        """Draw the views of ``rows`` at once; returns what makes the pixels of one."""
        config, side = self.config, self.config.input_size
        index = batch["index"][rows.start : rows.stop]
        # One row of numbers a sample, and fixed columns: turning one augmentation off leaves the others' draws alone.
        assert self.seed is not None
        numbers = views.uniform(self.seed, epoch, index, 44)
        mirror = (numbers[:, 0] < 0.5) & config.flip
        if config.color_jitter:
            batch["jitter"][rows.start : rows.stop] = views.jitter_factors(numbers[:, 1:4], config.color_jitter)
        if config.type_of_data_aug == "none":

            def draw_center(number: int, record: Record, out: np.ndarray) -> None:
                self._view(number, record, out)
                if mirror[number]:
                    out[:] = cv2.flip(out, 1)

            return draw_center

        known = getattr(self.samples, "sizes", None)
        if known is not None:
            sizes = known[index]
        else:
            sizes = np.array([(1, 1) if record is None else image_size(record.image) for record in records])
        if config.type_of_data_aug == "pad_crop":
            corners = views.padded_crop(numbers[:, 4:6], sizes, config.pad, side).tolist()
            mirrored = mirror.tolist()

            def draw_padded(number: int, record: Record, out: np.ndarray) -> None:
                top, left = corners[number]
                padded_window(decode(record.image), top, left, mirrored[number], out)

            return draw_padded
        if config.type_of_data_aug == "random_sized":
            windows = views.random_resized_crop(numbers[:, 4:], sizes, config.scale, config.ratio)
        else:
            windows = views.random_scale_crop(numbers[:, 4:7], sizes, config.rand_scale, side)

        def draw(number: int, record: Record, out: np.ndarray) -> None:
            top, left, height, width = windows[number].tolist()
            halve = min(height, width) >= 2 * side
            if halve:  # the decoder halves pairs of pixels
                top, left, height, width = (2 * (place // 2) for place in (top, left, height, width))
            pixels = decode_window(record.image, (top, left, height, width), halve=halve)
            if config.resize == "antialias":
                vertical, horizontal = taps(pixels.shape[0], side), taps(pixels.shape[1], side, mirror=mirror[number])
                resample(pixels, vertical, horizontal, out)
            else:
                view = scratch("view", out.size).reshape(out.shape) if mirror[number] else out
                cv2.resize(pixels, (side, side), dst=view, interpolation=_INTERPOLATION[config.resize])
                if mirror[number]:
                    cv2.flip(view, 1, dst=out)

        return draw
