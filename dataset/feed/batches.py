"""From sample numbers to pixels in place: what a decoding process does. Without torch, so that it starts fast.

A batch is a dict of arrays, B samples: "images" uint8 [B, H, W, 3] RGB, a canvas of H x W pixels each; "sizes" int64
[B, 2], height and width of what is shown there; "index" int64 [B] (its position in the split of N, of copies of it plus
multiples of N; -1 for a sample that could not be read); those of the targets; and for training with colour jitter
"jitter" float32 [B, 3]. The memory of a batch has room for the largest canvas, and "canvas" int64 [2] says which one it
is: `shown` gives the arrays.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dataset.config import STEP, DataConfig
from dataset.feed import crops
from dataset.feed.targets import Arrays, Fields, Targets, Window
from dataset.jpeg.decode import decode
from dataset.jpeg.images import image_size
from dataset.jpeg.raw import padded_window
from dataset.jpeg.views import COUNT, MIRROR, show_exact, show_planes
from dataset.store.record import Record
from dataset.store.samples import Samples
from utils.errors import DataError, UsageError


def shown(arrays: Arrays) -> Arrays:
    """The arrays of a batch, its images as those of its canvas, in memory that has room for the largest."""
    high, wide = arrays["canvas"].tolist()
    images, rows = arrays["images"], len(arrays["index"])
    canvases = images.reshape(-1)[: rows * high * wide * 3].reshape(rows, high, wide, 3)
    return {name: array for name, array in arrays.items() if name != "canvas"} | {"images": canvases}


@dataclass(frozen=True)
class Drawn:
    """What N samples show.

    Attributes:
        windows: where the canvases lie in the images.
        mirrors: bool [N], whether left and right are exchanged.
        axes: int64 [N, 2, 6], the same as `dataset.jpeg.views` has it; None for windows at full size that may reach
            beyond the image.
        places: int64 [N, 2], where the first pixel goes.
        sizes: int64 [N, 2], height and width of what the windows show.
    """

    windows: Sequence[Window]
    mirrors: np.ndarray
    axes: np.ndarray | None
    places: np.ndarray
    sizes: np.ndarray


@dataclass(frozen=True)
class BatchMaker:
    """Fills batches of one split, for training with a seed, for evaluation without.

    Raises:
        UsageError: images are shown in their own shapes, and nothing says what sizes they have.
    """

    samples: Samples
    config: DataConfig
    targets: Targets
    seed: int | None

    def __post_init__(self) -> None:
        if self._own_shapes and self.samples.sizes is None:
            raise UsageError("images in their own shapes, short_side, need to be packed: nothing here says their sizes")

    def layout(self, rows: int) -> Fields:
        """Type and shape of each array of a batch of ``rows`` samples."""
        high, wide = self._largest_canvas
        pixels: Fields = {
            "images": (np.uint8, (rows, high, wide, 3)),
            "canvas": (np.int64, (2,)),
            "sizes": (np.int64, (rows, 2)),
            "index": (np.int64, (rows,)),
        }
        jitter: Fields = (
            {"jitter": (np.float32, (rows, 3))} if self.seed is not None and self.config.color_jitter else {}
        )
        return {**pixels, **self.targets.layout(rows), **jitter}

    @property
    def pixels(self) -> int:
        """Of the largest canvas."""
        high, wide = self._largest_canvas
        return high * wide

    def canvas(self, index: np.ndarray, epoch: int) -> tuple[int, int]:
        """Height and width of the canvas of a batch of the samples ``index``, int64 [B], in pixels.

        It goes by those of the batches of all ranks together, for what surrounds an image shows in its features.
        """
        high, wide = self.canvases(index, epoch).max(axis=0).tolist()
        return high, wide

    def canvases(self, index: np.ndarray, epoch: int) -> np.ndarray:
        """Height and width of a canvas for each of the samples by itself, int64 [B, 2]."""
        if not self._own_shapes:
            return np.full((len(index), 2), self.config.input_size)
        assert self.samples.sizes is not None
        sizes = self.draw(index, epoch, self.samples.sizes[index]).sizes
        return -(-sizes // STEP) * STEP

    def fill(self, batch: Arrays, rows: range, epoch: int, watch: np.ndarray, spent: np.ndarray) -> list[str]:
        """Fill ``rows`` of a batch whose "index" and "canvas" are set.

        Args:
            batch: the arrays, as they lie in memory.
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
        batch = shown(batch)
        begun = time.perf_counter_ns()
        records, sizes = self._read(batch, rows, watch, remarks)
        spent[0] += time.perf_counter_ns() - begun
        index = batch["index"][rows.start : rows.stop]
        drawn = self.draw(index, epoch, sizes)
        batch["sizes"][rows.start : rows.stop] = drawn.sizes
        if "jitter" in batch and self.seed is not None:
            numbers = crops.uniform(self.seed, epoch, index, crops.WINDOW)[:, 1:4]
            batch["jitter"][rows.start : rows.stop] = crops.jitter_factors(numbers, self.config.color_jitter)
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
        index = batch["index"][rows.start : rows.stop] % len(self.samples)
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

    def draw(self, index: np.ndarray, epoch: int, sizes: np.ndarray) -> Drawn:
        """What the samples ``index``, int64 [N], show in ``epoch``, all at once; sizes: int [N, 2], of their images."""
        config, side = self.config, self.config.input_size
        kind = config.type_of_data_aug if self._crops else config.val_crop
        mirrors, numbers = np.zeros(len(index), bool), np.zeros((len(index), crops.WINDOW))
        if self.seed is not None:
            numbers = crops.uniform(self.seed, epoch, index, crops.WINDOW)
            mirrors = (numbers[:, 0] < 0.5) & config.flip
        if kind == "pad_crop":
            places = crops.padded_crop(numbers[:, 4:6], sizes, config.pad, side)
            windows = [Window(top, left, side, side) for top, left in places.tolist()]
            return Drawn(windows, mirrors, None, places, np.full_like(places, side))
        if kind == "short_side":
            axes, places = self._short_side(numbers, sizes), np.zeros((len(index), 2), np.int64)
            windows, squares = crops.shown_windows(axes), axes[:, :, COUNT]
        else:
            squares = np.full((len(index), 2), side)
            if kind == "center":
                windows = [crops.center_window(size, config.val_resize, side) for size in map(tuple, sizes.tolist())]
                axes, places = crops.center_axes(sizes, config.val_resize, side)
                places[:, 1] = np.where(mirrors, side - axes[:, 1, COUNT] - places[:, 1], places[:, 1])
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
        return Drawn(windows, mirrors, axes, places, squares)

    def _short_side(self, numbers: np.ndarray, sizes: np.ndarray) -> np.ndarray:
        """Axes of images in their own shapes."""
        config = self.config
        if not self._crops:
            return crops.short_side_axes(sizes, config.val_resize, config.longest_side)
        choices = np.array(config.short_sides)
        sides = choices[(numbers[:, 4] * len(choices)).astype(np.int64)]
        return crops.short_side_axes(sizes, sides, config.longest_side, config.largest_crop, numbers[:, 5:7])

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
        canvases = batch["images"][rows.start : rows.stop]
        for canvas, place, count in zip(canvases, drawn.places.tolist(), drawn.axes[:, :, COUNT].tolist()):
            _blacken_around(canvas, place, count)
        images = [None if record is None else record.image for record in records]
        return show_planes(images, drawn.axes, drawn.places, canvases, rows.start, watch, spent)

    def _show(self, record: Record, drawn: Drawn, number: int, out: np.ndarray, spent: np.ndarray) -> None:
        """Show one image in pixels of a stock decoder."""
        place = drawn.places[number]
        if drawn.axes is None:
            top, left = place.tolist()
            padded_window(decode(record.image), top, left, bool(drawn.mirrors[number]), out)
            return
        axes = drawn.axes[number]
        _blacken_around(out, place.tolist(), axes[:, COUNT].tolist())
        show_exact(record.image, axes, place, out, spent, how=self._how, halve=self._crops)

    @property
    def _own_shapes(self) -> bool:
        """Whether images are shown in their own shapes, and not in squares."""
        return (self.config.type_of_data_aug if self._crops else self.config.val_crop) == "short_side"

    @property
    def _largest_canvas(self) -> tuple[int, int]:
        """Height and width that no canvas exceeds."""
        config, side = self.config, self.config.input_size
        if self._own_shapes:
            longest = config.longest_side
            if self._crops and config.largest_crop:
                longest = min(longest, config.largest_crop)
            side = -(-longest // STEP) * STEP
        return side, side

    @property
    def _crops(self) -> bool:
        """Whether crops are those of training, or of evaluation."""
        return self.seed is not None and self.config.type_of_data_aug != "none"

    @property
    def _how(self) -> str:
        """How pixels are resized."""
        return self.config.resize if self._crops else "antialias"


def _blacken_around(canvas: np.ndarray, place: list[int], count: list[int]) -> None:
    """Zero what surrounds the ``count`` rows and columns from ``place`` on; canvas: [H, W, 3]."""
    (top, left), (high, wide) = place, count
    canvas[:top], canvas[top + high :] = 0, 0
    canvas[top : top + high, :left], canvas[top : top + high, left + wide :] = 0, 0


def _size_of(record: Record) -> tuple[int, int]:
    try:
        return image_size(record.image)
    except DataError as error:
        raise _named(record, error) from None


def _named(record: Record, error: DataError) -> DataError:
    return DataError(f"{record.key}: {error}; pack the split again, or leave the image out")
