"""From sample numbers to pixels in place: what a decoding process does. Without torch, so that it starts fast.

A batch is a dict of arrays, B samples: "images" uint8 [B, S, S, 3] RGB, "index" int64 [B] (its position in the split,
-1 for a sample that could not be read), those of the targets, and for training with colour jitter "jitter" float32
[B, 3].
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dataset.config import DataConfig
from dataset.feed import crops
from dataset.feed.targets import Arrays, Fields, Targets, Window
from dataset.jpeg.decode import decode
from dataset.jpeg.images import image_size
from dataset.jpeg.raw import padded_window
from dataset.jpeg.views import COUNT, MIRROR, show_exact, show_planes
from dataset.store.record import Record
from dataset.store.samples import Samples
from utils.errors import DataError


@dataclass(frozen=True)
class Drawn:
    """What N samples show.

    Attributes:
        windows: where the squares lie in the images.
        mirrors: bool [N], whether left and right are exchanged.
        axes: int64 [N, 2, 6], the same as `dataset.jpeg.views` has it; None for windows at full size that may reach
            beyond the image.
        places: int64 [N, 2], where the first pixel goes in the square.
    """

    windows: Sequence[Window]
    mirrors: np.ndarray
    axes: np.ndarray | None
    places: np.ndarray


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

    def fill(self, batch: Arrays, rows: range, epoch: int, watch: np.ndarray, spent: np.ndarray) -> list[str]:
        """Fill ``rows`` of a batch whose "index" is set.

        Args:
            batch: the arrays.
            rows: which of theirs.
            epoch: by which crops are drawn.
            watch: int64 [2], before each row is worked on its number and the time, nanoseconds of the monotonic clock.
            spent: nanoseconds of reading, decoding and resizing, int64 [3], which it adds to.

        Returns:
            A line for each sample that could not be read, where `on_fault` is skip.

        Raises:
            DataError: a sample cannot be read, where `on_fault` is stop.
        """
        remarks: list[str] = []
        begun = time.perf_counter_ns()
        records, sizes = self._read(batch, rows, watch, remarks)
        spent[0] += time.perf_counter_ns() - begun
        drawn = self._draw(batch, rows, epoch, sizes)
        undone = self._show_all(batch, rows, records, drawn, watch, spent[1:])
        for number, (row, record) in enumerate(zip(rows, records, strict=True)):
            if record is None:
                continue
            try:
                if undone[number]:
                    watch[:] = row, time.monotonic_ns()
                    self._show(record, drawn, number, batch["images"][row], spent[1:])
                self.targets.put(record.target, drawn.windows[number], bool(drawn.mirrors[number]), batch, row)
            except DataError as error:
                self._skip(batch, row, _named(record, error), remarks)
        return remarks

    def _read(
        self, batch: Arrays, rows: range, watch: np.ndarray, remarks: list[str]
    ) -> tuple[list[Record | None], np.ndarray]:
        """The records, None for one that cannot be read, and the sizes of their images, int [N, 2]."""
        index = batch["index"][rows.start : rows.stop]
        sizes = np.ones((len(rows), 2), np.int64) if self.samples.sizes is None else self.samples.sizes[index]
        records: list[Record | None] = []
        for number, row in enumerate(rows):
            watch[:] = row, time.monotonic_ns()
            try:
                record = self.samples.mapped(int(index[number]))
                if self.samples.sizes is None:
                    sizes[number] = _size_of(record)
                records.append(record)
            except DataError as error:
                records.append(None)
                self._skip(batch, row, error, remarks)
        return records, sizes

    def _skip(self, batch: Arrays, row: int, error: DataError, remarks: list[str]) -> None:
        if self.config.on_fault == "stop":
            raise error from None
        remarks.append(str(error))
        batch["index"][row] = -1

    def _draw(self, batch: Arrays, rows: range, epoch: int, sizes: np.ndarray) -> Drawn:
        """Draw what ``rows`` show, all at once."""
        config, side = self.config, self.config.input_size
        kind = config.type_of_data_aug if self._crops else config.val_crop
        mirrors = np.zeros(len(rows), bool)
        if self.seed is not None:
            index = batch["index"][rows.start : rows.stop]
            numbers = crops.uniform(self.seed, epoch, index, crops.WINDOW)
            mirrors = (numbers[:, 0] < 0.5) & config.flip
            if config.color_jitter:
                batch["jitter"][rows.start : rows.stop] = crops.jitter_factors(numbers[:, 1:4], config.color_jitter)
        if kind == "center":
            windows = [crops.center_window(size, config.val_resize, side) for size in map(tuple, sizes.tolist())]
            axes, places = crops.center_axes(sizes, config.val_resize, side)
            places[:, 1] = np.where(mirrors, side - axes[:, 1, COUNT] - places[:, 1], places[:, 1])
        elif kind == "pad_crop":
            places = crops.padded_crop(numbers[:, 4:6], sizes, config.pad, side)
            return Drawn([Window(top, left, side, side) for top, left in places.tolist()], mirrors, None, places)
        else:
            if kind == "squash":
                boxes = crops.whole(sizes)
            elif kind == "random_sized":
                boxes = crops.random_resized_crop(numbers[:, 4:], sizes, config.scale, config.ratio)
            else:
                boxes = crops.random_scale_crop(numbers[:, 4:7], sizes, config.rand_scale, side)
            windows = [Window(*box) for box in boxes.tolist()]
            axes, places = crops.window_axes(boxes, side)
        axes[:, 1, MIRROR] = mirrors
        return Drawn(windows, mirrors, axes, places)

    def _show_all(
        self,
        batch: Arrays,
        rows: range,
        records: list[Record | None],
        drawn: Drawn,
        watch: np.ndarray,
        spent: np.ndarray,
    ) -> np.ndarray:
        """Show what the codec can show in one call; returns what is left, bool [N]."""
        if drawn.axes is None or self.config.decode == "exact" or self._how != "antialias":
            return np.ones(len(rows), bool)
        squares = batch["images"][rows.start : rows.stop]
        squares[(drawn.axes[:, :, COUNT] < self.config.input_size).any(axis=1)] = 0
        images = [None if record is None else record.image for record in records]
        return show_planes(images, drawn.axes, drawn.places, squares, rows.start, watch, spent)

    def _show(self, record: Record, drawn: Drawn, number: int, out: np.ndarray, spent: np.ndarray) -> None:
        """Show one image in pixels of a stock decoder."""
        place = drawn.places[number]
        if drawn.axes is None:
            top, left = place.tolist()
            padded_window(decode(record.image), top, left, bool(drawn.mirrors[number]), out)
            return
        axes = drawn.axes[number]
        if (axes[:, COUNT] < len(out)).any():
            out[:] = 0
        show_exact(record.image, axes, place, out, spent, how=self._how, halve=self._crops)

    @property
    def _crops(self) -> bool:
        """Whether crops are those of training, or of evaluation."""
        return self.seed is not None and self.config.type_of_data_aug != "none"

    @property
    def _how(self) -> str:
        """How pixels are resized."""
        return self.config.resize if self._crops else "antialias"


def _size_of(record: Record) -> tuple[int, int]:
    try:
        return image_size(record.image)
    except DataError as error:
        raise _named(record, error) from None


def _named(record: Record, error: DataError) -> DataError:
    return DataError(f"{record.key}: {error}; pack the split again, or leave the image out")
