"""From sample numbers to pixels in place: what a decoding process does. Without torch, so that it starts fast.

A batch is a dict of arrays, B samples: "images" uint8 [B, S, S, 3] RGB, "labels" int64 [B], "index" int64 [B] (its
position in the split, -1 for a sample that could not be read), and for training with colour jitter "jitter" float32
[B, 3].
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from dataset.config import DataConfig
from dataset.feed import crops
from dataset.jpeg.decode import decode, decode_window
from dataset.jpeg.images import center_view, image_size
from dataset.jpeg.raw import padded_window
from dataset.jpeg.resize import filter_weights, resample
from dataset.jpeg.scratch import scratch
from dataset.store.record import Record
from dataset.store.samples import Samples
from utils.errors import DataError

_INTERPOLATION = {"linear": cv2.INTER_LINEAR, "area": cv2.INTER_AREA}

Batch = dict[str, np.ndarray]


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
        for row in rows:
            watch(row)
            try:
                sample = self.samples.view(int(batch["index"][row]))
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
        numbers = crops.uniform(self.seed, epoch, index, 44)
        mirror = (numbers[:, 0] < 0.5) & config.flip
        if config.color_jitter:
            batch["jitter"][rows.start : rows.stop] = crops.jitter_factors(numbers[:, 1:4], config.color_jitter)
        if config.type_of_data_aug == "none":

            def draw_center(number: int, record: Record, out: np.ndarray) -> None:
                self._view(number, record, out)
                if mirror[number]:
                    out[:] = cv2.flip(out, 1)

            return draw_center

        if self.samples.sizes is not None:
            sizes = self.samples.sizes[index]
        else:
            sizes = np.array([(1, 1) if record is None else image_size(record.image) for record in records])
        if config.type_of_data_aug == "pad_crop":
            corners = crops.padded_crop(numbers[:, 4:6], sizes, config.pad, side).tolist()
            mirrored = mirror.tolist()

            def draw_padded(number: int, record: Record, out: np.ndarray) -> None:
                top, left = corners[number]
                padded_window(decode(record.image), top, left, mirrored[number], out)

            return draw_padded
        if config.type_of_data_aug == "random_sized":
            windows = crops.random_resized_crop(numbers[:, 4:], sizes, config.scale, config.ratio)
        else:
            windows = crops.random_scale_crop(numbers[:, 4:7], sizes, config.rand_scale, side)

        def draw(number: int, record: Record, out: np.ndarray) -> None:
            top, left, height, width = windows[number].tolist()
            halve = min(height, width) >= 2 * side
            if halve:  # the decoder halves pairs of pixels
                top, left, height, width = (2 * (place // 2) for place in (top, left, height, width))
            pixels = decode_window(record.image, (top, left, height, width), halve=halve)
            if config.resize == "antialias":
                vertical = filter_weights(pixels.shape[0], side)
                resample(pixels, vertical, filter_weights(pixels.shape[1], side, mirror=mirror[number]), out)
            else:
                view = scratch("view", out.size).reshape(out.shape) if mirror[number] else out
                cv2.resize(pixels, (side, side), dst=view, interpolation=_INTERPOLATION[config.resize])
                if mirror[number]:
                    cv2.flip(view, 1, dst=out)

        return draw
