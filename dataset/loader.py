"""Batches from a split to the device.

On a CPU the images are the loader's own memory: they hold until the next batch is drawn, clone those to be kept.
"""

from __future__ import annotations

import copy
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from itertools import tee

import numpy as np
import torch
from torch import Tensor

from dataset.config import DataConfig
from dataset.feed import augment, crops, order
from dataset.feed.auto_augment import auto_augment
from dataset.feed.batch import Batch
from dataset.feed.batches import BatchMaker
from dataset.feed.ring import Ring
from dataset.feed.strong import randaugment, strong_views
from dataset.feed.targets import Arrays, Labels, Targets
from dataset.store.chosen import Chosen
from dataset.store.folder import ImageFolder
from dataset.store.packed import is_packed, open_packed
from dataset.store.remote import is_url, open_remote
from dataset.store.samples import Samples, as_samples
from utils.errors import DataError, UsageError
from utils.files import expanded
from utils.stopwatch import Stopwatch

__all__ = ["DataConfig", "EvalLoader", "TrainLoader", "open_split"]


def open_split(config: DataConfig, split: str, kind: str) -> Samples:
    """The samples of one split with the classes that are learned; ``kind`` is ``lmdb`` or ``img``.

    One without labels whose classes nothing names has those of validation.

    Raises:
        UsageError: the folder holds nothing of that kind, or other classes.
        DataError: it does, and is damaged or unfinished.
    """
    samples = _open(config, split, kind)
    if not samples.classes and split != config.val_split:  # without labels, and without names that labels would have
        with suppress(UsageError, DataError):  # which validation is told of when it is opened
            samples.classes = _open(config, config.val_split, config.val_data_type).classes
    return Chosen(samples, config.classes) if config.classes else samples


def _open(config: DataConfig, split: str, kind: str) -> Samples:
    if is_url(config.data_path):
        if kind == "img":
            raise UsageError(
                f"data.data_path: {config.data_path} must hold LMDB shards; folders of images must be local"
            )
        url = f"{config.data_path.rstrip('/')}/{split}"
        return open_remote(url, expanded(config.cache_path, "data.cache_path"), int(config.cache_gb * 1e9))
    root = expanded(config.data_path, "data.data_path")
    folder = root / split
    if not folder.is_dir():
        which = f"the folder that holds {split}/" + ("" if kind == "img" else ", written by the tools in dataset/")
        raise UsageError(f"data.data_path: {folder} is not a folder; set data.data_path to {which}")
    if kind == "img":
        return ImageFolder(root, split)
    if not is_packed(folder):
        raise UsageError(
            f"data.data_path: {folder} holds no LMDB shards; pack it with the tools in dataset/, or read class folders "
            "of images as they are with data.train_data_type=img data.val_data_type=img"
        )
    return open_packed(folder)


class TrainLoader:
    """Shuffled, augmented batches; the state is two numbers, the epoch and the batch.

    Args:
        samples: the split.
        config: how it is cropped and augmented.
        seed: of the order, the crops and all other draws.
        rank: of this process.
        world: number of ranks.
        device: where the batches are wanted.
        targets: what becomes of the targets of the records; labels when not given.

    Attributes:
        config, device: as they were given.
        batches: how many an epoch has.
        batch_size: images of each, over all ranks.
        rows: samples that a batch of `views` may have.
        stopwatch: of `copy`, what it takes to bring batches to the device and to distort them there.

    Raises:
        UsageError: settings that do not go together, or with the split.
    """

    def __init__(
        self,
        samples: Samples,
        config: DataConfig,
        seed: int,
        rank: int,
        world: int,
        device: torch.device,
        targets: Targets | None = None,
    ) -> None:
        config.check()
        samples = as_samples(samples)
        if config.batch_size % world:
            raise UsageError(f"data.batch_size={config.batch_size} does not divide over {world} ranks")
        if len(samples) < config.batch_size:
            raise UsageError(f"data.batch_size={config.batch_size} exceeds the {len(samples)} training images")
        share = config.batch_size // world
        self._mixes, self._unlabelled = bool(config.mixup or config.cutmix), samples.unlabelled
        if self._mixes and share % 2:
            raise UsageError(
                f"data.mixup and data.cutmix mix pairs: data.batch_size={config.batch_size} must give each of {world} "
                "ranks an even number of images"
            )
        self.batches, self.batch_size = len(samples) // config.batch_size, config.batch_size
        self._share = (config.batch_size, rank, world)
        self.rows = share // 2 if self._mixes else share
        self.config, self.device, self.stopwatch = config, device, Stopwatch(device)
        self._seed, self._samples = seed, samples
        samples.prepare(config.open_shards if config.order == "blocks" else None)
        self._reading: Generator[np.ndarray] | None = None
        self._maker = BatchMaker(samples, config, targets or Labels(len(samples.classes)), seed)
        self._stream = _Stream(Ring(self._maker, share, config.num_workers), device, _replace_skipped, self.stopwatch)

    def epoch(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        """The batches of ``epoch`` (from 0), from batch ``first`` on."""
        shards, config = self._samples.shards, self.config
        groups = [list(range(len(shards)))]
        if config.order == "blocks":
            groups = order.shard_groups(self._seed, self._ordered_as(epoch), len(shards), config.open_shards)
        whole = self._order(epoch)
        if config.repeats > 1:
            whole = order.repeated(whole, self.batch_size, config.repeats)
        if config.type_of_data_aug == "short_side":
            assert self._samples.sizes is not None
            stretches = [sum(shards[number] for number in group) for group in groups]
            whole = order.by_shape(whole, self._samples.sizes, self.batch_size, stretches)
        batches = self._reading = self._samples.reading(groups, order.training_batches(whole, *self._share, first))
        together = order.training_batches(whole, self.batch_size, 0, 1, first)  # those of all ranks
        yield from self._shown(self.views_of(epoch), zip(batches, together))

    def views_of(self, epoch: int) -> int:
        """The epoch whose views ``epoch`` shows."""
        return epoch % self.config.epochs_of_views if self.config.epochs_of_views else epoch

    def views(self, epoch: int, batches: Iterable[np.ndarray]) -> Iterator[Batch]:
        """Views of any samples as the training batches of ``epoch`` show them, mixed with the same ones.

        Args:
            epoch: from 0.
            batches: sample numbers, int64 [B], at most the batches' share of a rank; of half of that where images are
                mixed.

        Raises:
            UsageError: samples are repeated, so that each has several views.
        """
        if self.config.repeats > 1:
            raise UsageError(f"data.repeats={self.config.repeats} shows a sample several times: it has no one view")
        if not self._mixes:
            yield from self._shown(self.views_of(epoch), ((index, index) for index in batches))
            return
        whole = self._order(epoch)
        asked, pairs = tee(batches)
        both = (order.with_partners(whole, index).flatten() for index in pairs)
        for index, batch in zip(asked, self._shown(self.views_of(epoch), ((pair, pair) for pair in both))):
            wanted = order.with_partners(whole, index)
            rows = 2 * np.arange(len(index)) + (wanted[:, 1] == index)
            yield batch.at(torch.from_numpy(rows).to(batch.index.device))

    def _order(self, epoch: int) -> np.ndarray:
        """All samples in the order of ``epoch``, before batches go by shape."""
        config = self.config
        return order.epoch_order(
            self._seed, self._ordered_as(epoch), self._samples.shards, config.order, config.open_shards
        )

    def _ordered_as(self, epoch: int) -> int:
        """The epoch whose order ``epoch`` has: where images are mixed, views come again with the same partners."""
        return self.views_of(epoch) if self._mixes else epoch

    def _shown(self, epoch: int, batches: Iterable[tuple[np.ndarray, np.ndarray]]) -> Iterator[Batch]:
        for index, tensors in self._stream.run((epoch, *both) for both in batches):
            with self.stopwatch("copy"):
                if self.config.repeats > 1:
                    tensors["index"] %= len(self._samples)
                batch = self._augmented(tensors, index, epoch)
            yield batch

    @property
    def ahead(self) -> int:
        """How many batches may be ready, or on their way, before they are drawn."""
        return self._stream.ring.count

    def spent(self) -> dict[str, float]:
        """Seconds so far that the decoding processes together read, decoded, resized, and waited for a free slot."""
        slot, read, decode, resize = (self._stream.ring.spent() / 1e9).tolist()
        return {"read": read, "decode": decode, "resize": resize, "slot": slot}

    def _augmented(self, tensors: dict[str, Tensor], index: np.ndarray, epoch: int) -> Batch:
        """What happens on the device; by each sample's own draws, so that other batches show it alike."""
        jitter = tensors.pop("jitter", None)
        if self._unlabelled:  # so that nothing takes -1 for a class
            tensors.pop("labels", None)
        batch = _batch(tensors, epoch)
        images, targets = batch.images["weak"], batch.targets
        if jitter is not None:
            images = augment.color_jitter(images, jitter)
        config = self.config
        late = config.auto_augment != "none" or config.random_erase
        if config.strong_view or self._mixes or config.cutout or config.randaugment or late:
            last = crops.ERASE if late else crops.RANDAUGMENT
            draws = crops.uniform(self._seed, epoch, index, last.stop)
        if config.auto_augment != "none":
            strength = config.auto_augment, config.ra_magnitude, config.ra_magnitude_std
            images = auto_augment(images, draws[:, crops.AUTO_AUGMENT], *strength)
        if config.cutout:
            images = augment.cutout(images, draws[:, crops.CUTOUT], config.cutout)
        if config.randaugment:
            images = randaugment(images, draws[:, crops.RANDAUGMENT])
        if config.random_erase:
            images = augment.erase(images, draws[:, crops.ERASE], config.random_erase, config.erase_mode)
        if self._mixes:
            images, share = augment.mix(images, draws[:, crops.MIX], config.mixup, config.cutmix)
            others = {f"other_{name}": augment.neighbours(target) for name, target in targets.items()}
            targets = {**targets, **others, "other_index": augment.neighbours(batch.index), "other_share": share}
        views = {"weak": images}
        if config.strong_view:
            views["strong"] = strong_views(images, draws[:, crops.STRONG])
        return replace(batch, images=views, targets=targets)

    def close(self) -> None:
        """End the decoding processes, and fetch no more."""
        if self._reading is not None:
            self._reading.close()
        self._stream.ring.close()


class EvalLoader:
    """Every sample of a split once over all ranks, resized and cropped at the centre, or in its own shape."""

    def __init__(
        self,
        samples: Samples,
        config: DataConfig,
        rank: int,
        world: int,
        device: torch.device,
        targets: Targets | None = None,
    ) -> None:
        config.check()
        samples = as_samples(samples)
        self.samples = samples
        self._share = (config.val_batch_size, rank, world)
        self._maker = maker = BatchMaker(samples, config, targets or Labels(len(samples.classes)), None)
        self._batches = self._batches_of(np.arange(len(samples)))
        rows = max(map(len, self._batches), default=1)
        self._share = (rows, rank, world)  # of fewer samples, more may have one canvas
        workers = min(config.num_workers, -(-len(samples) // world))
        self._stream = _Stream(Ring(maker, rows, workers), device, _drop_skipped, Stopwatch(device))

    def spread(self, images: int) -> EvalLoader:
        """At most ``images`` of the samples, at equal distances, read by the same processes; closed with this one."""
        places = np.linspace(0, len(self.samples) - 1, min(images, len(self.samples))).astype(int)
        spread = copy.copy(self)
        spread._batches = self._batches_of(places)
        return spread

    def _batches_of(self, places: np.ndarray) -> list[np.ndarray]:
        batches = order.evaluation_batches(self._maker.canvases(places, 0), *self._share)
        return [places[batch] for batch in batches]

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[Batch]:
        for _, tensors in self._stream.run((0, index, index) for index in self._batches):
            if len(tensors["index"]):  # else all were skipped
                yield _batch(tensors, 0)

    def close(self) -> None:
        """End the decoding processes."""
        self._stream.ring.close()


class _Stream:
    """Slots of a ring as tensors on a device; on a GPU the copy of the next runs beside the work on the last."""

    def __init__(
        self, ring: Ring, device: torch.device, mend: Callable[[Arrays], Arrays], stopwatch: Stopwatch
    ) -> None:
        self.ring, self._device, self._mend, self._stopwatch = ring, device, mend, stopwatch
        self._copies = torch.cuda.Stream(device) if device.type == "cuda" else None

    def run(self, batches: Iterator[_Asked]) -> Iterator[tuple[np.ndarray, dict[str, Tensor]]]:
        """The batches asked for: the samples that are in each, and its arrays."""
        if self.ring.start() and self._copies is not None and self.ring.memory is not None:
            _pin(np.frombuffer(self.ring.memory, np.uint8))
        self.ring.drain()
        asked: deque[int] = deque()
        copied: deque[_Copied] = deque()
        while True:
            while self.ring.has_room and (item := next(batches, None)) is not None:
                epoch, index, among = item
                asked.append(self.ring.submit(index, epoch, among))
            if self._copies is None:
                if not asked:
                    return
                slot = asked.popleft()
                arrays = self.ring.wait(slot)
                with self._stopwatch("copy"):
                    arrays = self._mend(arrays)
                    tensors = _tensors(arrays)
                yield arrays["index"].copy(), tensors
                self.ring.release(slot)
                continue
            while asked and (not copied or (len(copied) < 2 and self.ring.ready(asked[0]))):
                copied.append(self._copy(asked.popleft()))
            if not copied:
                return
            index, tensors, done, slot = copied.popleft()
            with self._stopwatch("copy"):  # what of it the GPU has to wait for
                torch.cuda.current_stream(self._device).wait_event(done)
            for tensor in tensors.values():
                tensor.record_stream(torch.cuda.current_stream(self._device))
            yield index, tensors
            done.synchronize()
            self.ring.release(slot)

    def _copy(self, slot: int) -> _Copied:
        arrays = self._mend(self.ring.wait(slot))
        tensors = _tensors(arrays)
        done = torch.cuda.Event()
        with torch.cuda.stream(self._copies):
            copies = {name: tensor.to(self._device, non_blocking=True) for name, tensor in tensors.items()}
            done.record()
        return arrays["index"].copy(), copies, done, slot


_Asked = tuple[int, np.ndarray, np.ndarray]  # the epoch, the samples, those of all ranks
_Copied = tuple[np.ndarray, dict[str, Tensor], torch.cuda.Event, int]


def _tensors(arrays: Arrays) -> dict[str, Tensor]:
    tensors = {name: torch.from_numpy(array.copy() if array.ndim < 4 else array) for name, array in arrays.items()}
    return {**tensors, "images": tensors["images"].permute(0, 3, 1, 2)}  # the bytes of [B, H, W, 3] are channels_last


def _batch(tensors: dict[str, Tensor], epoch: int) -> Batch:
    images, sizes, index = (tensors.pop(name) for name in ("images", "sizes", "index"))
    return Batch({"weak": images}, sizes, tensors, index, epoch)


def _replace_skipped(batch: Arrays) -> Arrays:
    """Training batches stay whole: the place of a skipped sample goes to the first good one."""
    bad = batch["index"] < 0
    if bad.all():
        raise DataError("not one sample of a whole batch could be read; the warnings name them")
    if bad.any():
        good = int(np.flatnonzero(~bad)[0])
        for array in batch.values():
            array[bad] = array[good]
    return batch


def _drop_skipped(batch: Arrays) -> Arrays:
    good = batch["index"] >= 0
    return batch if good.all() else {name: array[good] for name, array in batch.items()}


def _pin(memory: np.ndarray) -> None:
    """Lock the slots in memory, so that copies to the GPU run beside its work."""
    code = torch.cuda.cudart().cudaHostRegister(memory.ctypes.data, memory.nbytes, 0)
    if int(code) != 0:
        warnings.warn(f"the batches cannot be pinned (CUDA error {int(code)}): copies will be slower", stacklevel=2)
