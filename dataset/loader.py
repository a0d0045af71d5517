"""Batches from a split to the device.

A batch is a dict of tensors, B samples of this rank:

    "images"  uint8 [B, 3, S, S], RGB, channels_last
    "labels"  int64 [B]
    "index"   int64 [B], position of each sample in its split

and with mixup or cutmix the labels of the images mixed in and their share:

    "other_labels"  int64 [B]
    "other_share"   float32 [B]

with strong_view

    "strong_images"  uint8 [B, 3, S, S]

On a CPU the images are the loader's own memory: they hold until the next batch is drawn, clone those to be kept.
"""

from __future__ import annotations

import copy
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterator

import numpy as np
import torch
from torch import Tensor

from dataset.config import DataConfig
from dataset.feed import augment, order
from dataset.feed.batches import Batch, BatchMaker
from dataset.feed.ring import Ring
from dataset.feed.strong import strong_views
from dataset.store.folder import ImageFolder
from dataset.store.index import INDEX
from dataset.store.reader import ShardReader
from dataset.store.remote import is_url, open_remote
from dataset.store.samples import Samples, check_samples
from dataset.store.wsld import WsldReader, is_wsld_folder
from utils.errors import DataError, UsageError
from utils.files import expanded

__all__ = ["DataConfig", "EvalLoader", "TrainLoader", "open_split"]


def open_split(config: DataConfig, split: str, kind: str) -> Samples:
    """The samples of one split; ``kind`` is ``lmdb`` or ``img``.

    Raises:
        UsageError: the folder holds nothing of that kind.
        DataError: it does, and is damaged or unfinished.
    """
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
    if not ((folder / INDEX).exists() or any(folder.glob("*.lmdb")) or is_wsld_folder(folder)):
        raise UsageError(
            f"data.data_path: {folder} holds no LMDB shards; pack it with the tools in dataset/, or read class folders "
            "of images as they are with data.train_data_type=img data.val_data_type=img"
        )
    if (folder / INDEX).exists() or not is_wsld_folder(folder):
        return ShardReader(folder)
    return WsldReader(folder)


class TrainLoader:
    """Shuffled, augmented batches; the state is two numbers, the epoch and the batch."""

    def __init__(
        self, samples: Samples, config: DataConfig, seed: int, rank: int, world: int, device: torch.device
    ) -> None:
        config.check()
        check_samples(samples)
        if config.batch_size % world:
            raise UsageError(f"data.batch_size={config.batch_size} does not divide over {world} ranks")
        if len(samples) < config.batch_size:
            raise UsageError(f"data.batch_size={config.batch_size} exceeds the {len(samples)} training images")
        self.batches, self.batch_size = len(samples) // config.batch_size, config.batch_size
        self._share = (config.batch_size, rank, world)
        share = config.batch_size // world
        self._rows = range(rank * share, (rank + 1) * share)  # of this rank in a batch of all
        self._seed, self._config, self._samples = seed, config, samples
        samples.prepare(config.open_shards if config.order == "blocks" else None)
        self._reading: Generator[np.ndarray] | None = None
        maker = BatchMaker(samples, config, seed)
        self._stream = _Stream(Ring(maker, config.batch_size // world, config.num_workers), device, _replace_skipped)

    def epoch(self, epoch: int, first: int = 0) -> Iterator[dict[str, Tensor]]:
        """The batches of ``epoch`` (from 0), from batch ``first`` on."""
        shards, config = self._samples.shards, self._config
        whole = order.epoch_order(self._seed, epoch, shards, config.order, config.open_shards)
        groups = [list(range(len(shards)))]
        if config.order == "blocks":
            groups = order.shard_groups(self._seed, epoch, len(shards), config.open_shards)
        batches = self._reading = self._samples.reading(groups, order.training_batches(whole, *self._share, first))
        for number, batch in enumerate(self._stream.run((epoch, index) for index in batches), start=first):
            jitter = batch.pop("jitter", None)
            if jitter is not None:
                batch["images"] = augment.color_jitter(batch["images"], jitter)
            if self._config.strong_view:
                random = self._random(epoch, number)
                batch["strong_images"] = strong_views(batch["images"], self._rows, self.batch_size, random)
            if self._config.mixup or self._config.cutmix:
                random = self._random(epoch, number)
                mixed = augment.mix(batch["images"], batch["labels"], self._config.mixup, self._config.cutmix, random)
                batch["images"], batch["other_labels"], batch["other_share"] = mixed
            yield batch

    def _random(self, epoch: int, batch: int) -> np.random.Generator:
        """Draws of a batch, the same on every rank."""
        return np.random.Generator(np.random.Philox(key=[self._seed, (epoch << 32) + batch]))

    def close(self) -> None:
        """End the decoding processes, and fetch no more."""
        if self._reading is not None:
            self._reading.close()
        self._stream.ring.close()


class EvalLoader:
    """Every sample of a split once over all ranks, resized and cropped at the centre."""

    def __init__(self, samples: Samples, config: DataConfig, rank: int, world: int, device: torch.device) -> None:
        config.check()
        check_samples(samples)
        self.samples = samples
        self._share = (config.val_batch_size, rank, world)
        self._batches = list(order.evaluation_batches(len(samples), *self._share))
        rows = max(map(len, self._batches), default=1)
        workers = min(config.num_workers, -(-len(samples) // world))
        self._stream = _Stream(Ring(BatchMaker(samples, config, None), rows, workers), device, _drop_skipped)

    def spread(self, images: int) -> EvalLoader:
        """At most ``images`` of the samples, at equal distances, read by the same processes; closed with this one."""
        places = np.linspace(0, len(self.samples) - 1, min(images, len(self.samples))).astype(int)
        some = copy.copy(self)
        some._batches = [places[batch] for batch in order.evaluation_batches(len(places), *self._share)]
        return some

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        yield from self._stream.run((0, index) for index in self._batches)

    def close(self) -> None:
        """End the decoding processes."""
        self._stream.ring.close()


class _Stream:
    """Slots of a ring as batches on a device; on a GPU the copy of the next runs beside the work on the last."""

    def __init__(self, ring: Ring, device: torch.device, mend: Callable[[Batch], Batch]) -> None:
        self.ring, self._device, self._mend = ring, device, mend
        self._copies = torch.cuda.Stream(device) if device.type == "cuda" else None

    def run(self, batches: Iterator[tuple[int, np.ndarray]]) -> Iterator[dict[str, Tensor]]:
        """The batches asked for, each sample index with its epoch."""
        if self.ring.start() and self._copies is not None and self.ring.memory is not None:
            _pin(np.frombuffer(self.ring.memory, np.uint8))
        self.ring.drain()
        asked: deque[int] = deque()
        copied: deque[_Copied] = deque()
        while True:
            while self.ring.has_room and (item := next(batches, None)) is not None:
                asked.append(self.ring.submit(item[1], item[0]))
            if self._copies is None:
                if not asked:
                    return
                slot = asked.popleft()
                yield _tensors(self._mend(self.ring.wait(slot)))
                self.ring.release(slot)
                continue
            while asked and (not copied or (len(copied) < 2 and self.ring.ready(asked[0]))):
                copied.append(self._copy(asked.popleft()))
            if not copied:
                return
            batch, done, slot = copied.popleft()
            torch.cuda.current_stream(self._device).wait_event(done)
            for tensor in batch.values():
                tensor.record_stream(torch.cuda.current_stream(self._device))
            yield batch
            done.synchronize()
            self.ring.release(slot)

    def _copy(self, slot: int) -> _Copied:
        tensors = _tensors(self._mend(self.ring.wait(slot)))
        done = torch.cuda.Event()
        with torch.cuda.stream(self._copies):
            batch = {name: tensor.to(self._device, non_blocking=True) for name, tensor in tensors.items()}
            done.record()
        return batch, done, slot


_Copied = tuple[dict[str, Tensor], torch.cuda.Event, int]


def _tensors(batch: Batch) -> dict[str, Tensor]:
    tensors = {name: torch.from_numpy(array.copy() if array.ndim < 4 else array) for name, array in batch.items()}
    return {**tensors, "images": tensors["images"].permute(0, 3, 1, 2)}  # the bytes of [B, S, S, 3] are channels_last


def _replace_skipped(batch: Batch) -> Batch:
    """Training batches stay whole: the place of a skipped sample goes to the first good one."""
    good = np.flatnonzero(batch["index"] >= 0)
    if len(good) == len(batch["index"]):
        return batch
    if not len(good):
        raise DataError("not one sample of a whole batch could be read; the warnings name them")
    for array in batch.values():
        array[batch["index"] < 0] = array[good[0]]
    return batch


def _drop_skipped(batch: Batch) -> Batch:
    good = batch["index"] >= 0
    return batch if good.all() else {name: array[good] for name, array in batch.items()}


def _pin(memory: np.ndarray) -> None:
    """Lock the slots in memory, so that copies to the GPU run beside its work."""
    code = torch.cuda.cudart().cudaHostRegister(memory.ctypes.data, memory.nbytes, 0)
    if int(code) != 0:
        warnings.warn(f"the batches cannot be pinned (CUDA error {int(code)}): copies will be slower", stacklevel=2)
