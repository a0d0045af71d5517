"""From sample numbers to pixels in place: what a decoding process does. Without torch, so that it starts fast.

A batch is a dict of arrays, B samples: "images" uint8 [B, S, S, 3] RGB, "index" int64 [B] (its position in the split,
-1 for a sample that could not be read), those of the targets, and for training with colour jitter "jitter" float32
[B, 3].
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from dataset.config import DataConfig
from dataset.feed import crops
from dataset.feed.targets import Arrays, Fields, Targets, Window
from dataset.jpeg.decode import decode, decode_window
from dataset.jpeg.images import center_crop, image_size, squash
from dataset.jpeg.raw import padded_window
from dataset.jpeg.resize import filter_weights, resample
from dataset.jpeg.scratch import scratch
from dataset.store.record import Record
from dataset.store.samples import Samples
from utils.errors import DataError

_INTERPOLATION = {"linear": cv2.INTER_LINEAR, "area": cv2.INTER_AREA}

Drawn = tuple[Window, bool]  # where the crop lies, and whether it is mirrored
Draw = Callable[[int, Record, np.ndarray], Drawn]  # number among the rows, record, pixels to fill


@dataclass(frozen=True)
class BatchMaker:
    """Fills batches of one split, for training with a seed, for evaluation without."""

    samples: Samples
    config: DataConfig
    targets: Targets
    seed: int | None

    def layout(self, rows: int) -> Fields:
        """Type and shape of each array of a batch of ``rows`` samples."""
        side = self.config.input_size
        pixels: Fields = {"images": (np.uint8, (rows, side, side, 3)), "index": (np.int64, (rows,))}
        jitter: Fields = (
            {"jitter": (np.float32, (rows, 3))} if self.seed is not None and self.config.color_jitter else {}
        )
        return {**pixels, **self.targets.layout(rows), **jitter}

    def fill(self, batch: Arrays, rows: range, epoch: int, watch: Callable[[int], None]) -> list[str]:
        """Fill ``rows`` of a batch whose "index" is set; calls ``watch`` with each row before it is worked on.

        Returns:
            A line for each sample that could not be read, where `on_fault` is skip.

        Raises:
            DataError: a sample cannot be read, where `on_fault` is stop.
        """
        records: list[Record | None] = []
        remarks: list[str] = []
        for row in rows:
            watch(row)
            try:
                records.append(self.samples.mapped(int(batch["index"][row])))
            except DataError as error:
                records.append(None)
                self._skip(batch, row, error, remarks)
        draw = self._center if self.seed is None else self._random(batch, rows, epoch, records)
        for row, record in zip(rows, records, strict=True):
            if record is not None:
                watch(row)
                try:
                    window, mirror = draw(row - rows.start, record, batch["images"][row])
                    self.targets.put(record.target, window, mirror, batch, row)
                except DataError as error:
                    named = f"{record.key}: {error}; pack the split again, or leave the image out"
                    self._skip(batch, row, DataError(named), remarks)
        return remarks

    def _skip(self, batch: Arrays, row: int, error: DataError, remarks: list[str]) -> None:
        if self.config.on_fault == "stop":
            raise error from None
        remarks.append(str(error))
        batch["index"][row] = -1

    def _center(self, _number: int, record: Record, out: np.ndarray) -> Drawn:
        size = image_size(record.image)
        if self.config.val_crop == "squash":
            squash(record.image, out)
            return Window(0, 0, *size), False
        shape = size, self.config.val_resize, self.config.input_size
        center_crop(record.image, *shape, out)
        return crops.center_window(*shape), False

    def _random(self, batch: Arrays, rows: range, epoch: int, records: list[Record | None]) -> Draw:
        """Draw what ``rows`` show at once; returns what makes the pixels of one."""
        config, side = self.config, self.config.input_size
        index = batch["index"][rows.start : rows.stop]
        assert self.seed is not None
        numbers = crops.uniform(self.seed, epoch, index, crops.WINDOW)
        mirrors = ((numbers[:, 0] < 0.5) & config.flip).tolist()
        if config.color_jitter:
            batch["jitter"][rows.start : rows.stop] = crops.jitter_factors(numbers[:, 1:4], config.color_jitter)
        if config.type_of_data_aug == "none":

            def draw_center(number: int, record: Record, out: np.ndarray) -> Drawn:
                window, _ = self._center(number, record, out)
                if mirrors[number]:
                    out[:] = cv2.flip(out, 1)
                return window, mirrors[number]

            return draw_center

        if self.samples.sizes is not None:
            sizes = self.samples.sizes[index]
        else:
            sizes = np.array([(1, 1) if record is None else image_size(record.image) for record in records])
        if config.type_of_data_aug == "pad_crop":
            corners = crops.padded_crop(numbers[:, 4:6], sizes, config.pad, side).tolist()

            def draw_padded(number: int, record: Record, out: np.ndarray) -> Drawn:
                top, left = corners[number]
                padded_window(decode(record.image), top, left, mirrors[number], out)
                return Window(top, left, side, side), mirrors[number]

            return draw_padded
        if config.type_of_data_aug == "squash":
            windows = crops.whole(sizes).tolist()
        elif config.type_of_data_aug == "random_sized":
            windows = crops.random_resized_crop(numbers[:, 4:], sizes, config.scale, config.ratio).tolist()
        else:
            windows = crops.random_scale_crop(numbers[:, 4:7], sizes, config.rand_scale, side).tolist()

        def draw(number: int, record: Record, out: np.ndarray) -> Drawn:
            top, left, height, width = windows[number]
            mirror = mirrors[number]
            halve = min(height, width) >= 2 * side
            if halve:  # the decoder halves pairs of pixels
                top, left, height, width = (2 * (place // 2) for place in (top, left, height, width))
            pixels = decode_window(record.image, (top, left, height, width), halve=halve)
            if config.resize == "antialias":
                vertical = filter_weights(pixels.shape[0], side)
                resample(pixels, vertical, filter_weights(pixels.shape[1], side, mirror=mirror), out)
            else:
                crop = scratch("crop", out.size).reshape(out.shape) if mirror else out
                cv2.resize(pixels, (side, side), dst=crop, interpolation=_INTERPOLATION[config.resize])
                if mirror:
                    cv2.flip(crop, 1, dst=out)
            return Window(top, left, height, width), mirror

        return draw
