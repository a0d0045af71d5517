"""A teacher whose outputs are stored: read where they are there, computed and kept where they are not.

B samples, K classes, N samples of the split; of detectors D detections of an image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager

import numpy as np
import torch
from torch import Tensor, nn

from dataset.config import STEP
from dataset.feed.batch import Batch
from dataset.loader import TrainLoader
from models.outputs import FOUND, IMAGENET, Outputs
from models.zoo import Network
from stored.records import BoxesRecord, Record
from stored.store import PRIOR, Store
from teachers import Live, Views, scene_of
from utils.distributed import Ranks, barrier, on_first
from utils.errors import DataError

Precision = Callable[[], AbstractContextManager]


class Stored(nn.Module):
    """What a `Live` teacher gives, as its store keeps it: training is the same whether the store is filled or not.

    Args:
        store: where.
        record: what is kept of its outputs.
        views: that are kept: weak, strong.
        classes: K, of the teacher.
        live: the teacher itself; None where all that is wanted is stored.
        places: as `Teacher` has them.
        epochs: whose views a run shows.
        priors: how many epochs, from 0 on, the priors are made of.
        linear: whether those of mixed images are those of the two images, mixed.

    Attributes:
        network: stands in for the teacher's, with outputs of the same shapes.
    """

    places: Tensor | None
    is_shared = True

    def __init__(
        self,
        store: Store,
        record: Record,
        views: Sequence[str],
        classes: int,
        live: Live | None,
        places: Tensor | None,
        epochs: Sequence[int],
        priors: int,
        *,
        linear: bool = False,
    ) -> None:
        super().__init__()
        self.store, self.record, self.views, self.live = store, record, views, live
        self.epochs, self.priors, self._linear = epochs, priors, linear
        self.network: Network = _StandIn(record, classes)
        self.register_buffer("places", places, persistent=False)
        self._priors: dict[str, Tensor] = {}
        self._table: dict[str, Tensor] = {}
        self._covered: dict[str, Tensor] = {}
        self.epoch = -1
        self.fills = False

    def whole(self, epochs: Iterable[int]) -> list[int]:
        """Those of ``epochs`` that the store has all of."""
        return [epoch for epoch in epochs if all(self.store.is_whole(view, epoch) for view in self.views)]

    def begin(self, epoch: int, device: torch.device) -> None:
        """Get ready for the views of ``epoch``: read them, or what a stopped run has computed of them.

        Raises:
            DataError: a block is damaged, or missing where there is no teacher to compute it.
        """
        self.epoch, self.fills = epoch, False
        self._read_priors(device)
        whole = {view: self.store.read_whole(view, epoch) for view in self.views}
        self.fills = any(records is None for records in whole.values())
        if self.fills and self.live is None:
            raise DataError(
                f"{self.store.path} lacks a block of epoch {epoch + 1} that was there at the start: run the same "
                "command again, and it is computed"
            )
        for view, records in whole.items():
            covered = np.full(self.store.samples, records is not None)
            if records is None:
                records = np.zeros((self.store.samples, self.record.size), np.uint8)
                for index, part in self.store.parts(view, epoch):
                    records[index], covered[index] = part, True
            self._table[view] = torch.from_numpy(records).to(device)
            self._covered[view] = torch.from_numpy(covered).to(device)
        self._kept = {view: covered.clone() for view, covered in self._covered.items()}
        self._sound = torch.ones((), dtype=torch.bool, device=device)

    def forward(self, views: Views, view: str, student: Outputs) -> Outputs:
        """What the store has for a view of a batch: logits [B, K], and `pooled` [B, C] where it is kept; of a detector
        `boxes` [B, D, 4], `scores` [B, D] and `classes` [B, D]."""
        index = views.batch.index
        if self.fills:
            outputs = self._given(views, view, student)
            self._sound &= _are_sound(outputs.logits)
            records = self.encoded(outputs, views.batch, view)
            self._table[view].index_copy_(0, index, records)
            self._covered[view].index_fill_(0, index, True)
            return self.decoded(records, index, view)
        given = self.stored(view, index)
        if not self._linear or "other_share" not in views.batch.targets:
            return given
        index, share = views.batch.targets["other_index"], views.batch.targets["other_share"][:, None]
        others = self.stored(view, index)
        features = {name: torch.lerp(one, others.features[name], share) for name, one in given.features.items()}
        competing = self.record.competing
        one, other = (x.logits.softmax(1) if competing else x.logits.sigmoid() for x in (given, others))
        mixed = torch.lerp(one, other, share).clamp(torch.finfo(torch.float32).tiny, 1 - 2**-24)
        return Outputs(mixed.log() if competing else mixed.logit(), features)

    def stored(self, view: str, index: Tensor) -> Outputs:
        """What is there of samples ``index``, int64 [B], in the epoch that was begun."""
        return self.decoded(self._table[view].index_select(0, index), index, view)

    def encoded(self, outputs: Outputs, batch: Batch, view: str) -> Tensor:
        """Records, uint8 [B, size], of what the teacher gives for a batch."""
        prior = self._prior(batch.index, view)
        return self.record.encode(self.record.kept(outputs), batch.targets.get("labels"), prior)

    def decoded(self, records: Tensor, index: Tensor, view: str) -> Outputs:
        """What records, uint8 [B, size], of samples ``index`` hold."""
        return self.record.decode(records, self._prior(index, view))

    def keep(self, name: str) -> None:
        """Write what was computed since this was last called, as a part by this ``name``; so a kill does not lose it.

        Raises:
            DataError: the disk is full or cannot be written, or the teacher gave logits that are not finite.
        """
        if self.fills:
            self.check_sound(self._sound)
        for view in self.views if self.fills else ():
            fresh = (self._covered[view] & ~self._kept[view]).nonzero()[:, 0]
            if len(fresh):
                records = self._table[view].index_select(0, fresh).cpu().numpy()
                self.store.write_part(view, self.epoch, name, fresh.cpu().numpy(), records)
                self._kept[view] |= self._covered[view]

    def end(self, loader: TrainLoader, precision: Precision, ranks: Ranks, name: str) -> None:
        """After an epoch, make blocks of what all ranks have computed; samples that sat it out are looked at now.

        Raises:
            DataError: as `keep`.
        """
        if not self.fills:
            return
        self.keep(name)
        barrier()
        on_first(lambda: self._complete(loader, precision), ranks)

    def _complete(self, loader: TrainLoader, precision: Precision) -> None:
        store, epoch = self.store, self.epoch
        if self.whole([epoch]):  # by another run that fills the same store
            for view in self.views:
                store.remove_parts(view, epoch)
            return
        tables, seen = {}, np.ones(store.samples, bool)
        for view in self.views:
            tables[view] = np.zeros((store.samples, self.record.size), np.uint8)
            covered = np.zeros(store.samples, bool)
            for index, records in store.parts(view, epoch):
                tables[view][index], covered[index] = records, True
            seen &= covered
        for batch, given in self.look(loader, epoch, np.flatnonzero(~seen), precision):
            for view, outputs in given.items():
                tables[view][batch.index.cpu().numpy()] = self.encoded(outputs, batch, view).cpu().numpy()
        for view, table in tables.items():
            for block in range(store.blocks):
                store.write(view, epoch, block, table[store.of_block(block)])
            store.remove_parts(view, epoch)

    def look(
        self, loader: TrainLoader, epoch: int, samples: np.ndarray, precision: Precision
    ) -> Iterator[tuple[Batch, dict[str, Outputs]]]:
        """What the teacher gives by view for ``samples`` as ``epoch`` shows them; those that cannot be read are left
        out, where the loader skips them."""
        for batch in loader.views(epoch, _in_batches(samples, loader.rows)):
            views = Views(batch)
            with torch.no_grad(), precision():
                given = {view: self._given(views, view, Outputs(batch.index)) for view in self.views}
            for outputs in given.values():
                self.check_sound(_are_sound(outputs.logits))
            yield batch, given

    def check_sound(self, sound: Tensor) -> None:
        """Raises DataError where logits that were to be stored were not ``sound``."""
        if not sound:
            raise DataError(
                f"{self.store.path}: the teacher gives logits that are not finite, and none of them are stored: check "
                "its weights, mean and std, or use bf16 in place of fp16"
            )

    def train(self, mode: bool = True) -> Stored:
        """Nothing in it trains."""
        super().train(False)
        return self

    def _given(self, views: Views, view: str, student: Outputs) -> Outputs:
        """What the teacher itself gives for a view of a batch."""
        assert self.live is not None
        if isinstance(self.record, BoxesRecord):
            return _found_in_each(self.live, views.batch, view)
        return self.live(views, view, student)

    def _prior(self, index: Tensor, view: str) -> Tensor | None:
        return self._priors[view].index_select(0, index) if self.record.needs_prior else None

    def _read_priors(self, device: torch.device) -> None:
        for view in self.views if self.record.needs_prior else ():
            if view not in self._priors:
                read = self.store.read_whole(view, PRIOR)
                if read is None:
                    raise DataError(f"{self.store.path} lacks a block of the priors: run the same command again")
                self._priors[view] = torch.from_numpy(read.view(np.int8)).to(device)


def _are_sound(logits: Tensor) -> Tensor:
    """Whether logits [B, K] are numbers below infinity; -inf is a class that is left out. Scalar."""
    return logits.amax(1).isfinite().all()


@torch.no_grad()
def _found_in_each(live: Live, batch: Batch, view: str) -> Outputs:
    """What a detector finds in each image, on the smallest canvas that has room for it.

    The zeros that surround an image show in its features, and how many there are depends on the images beside it: what
    is stored of a view must not.
    """
    groups: dict[tuple[int, ...], list[int]] = {}
    for row, canvas in enumerate((-(-batch.sizes // STEP) * STEP).tolist()):
        groups.setdefault((*canvas,), []).append(row)
    rows = [torch.tensor(group, device=batch.index.device) for group in groups.values()]
    parts = []
    for (height, width), group in zip(groups, rows):
        part = batch.at(group)
        parts.append(live.predict(part.images[view][:, :, :height, :width], scene_of(part)))
    places = torch.cat(rows).argsort()
    logits = torch.cat([part.logits.flatten(0, -2) for part in parts])  # of regions or anchors: whether they are sound
    return Outputs(logits, {}, {name: torch.cat([part.context[name] for part in parts])[places] for name in FOUND})


class _StandIn(Network):
    """What says nothing of images, in the shapes of a teacher's outputs."""

    def __init__(self, record: Record, classes: int) -> None:
        super().__init__(nn.Identity(), IMAGENET, classes)
        self._record = record

    def forward(self, images: Tensor, scene: object = None) -> Outputs:
        """As `Stored` gives them."""
        return self._record.nothing(images)


def _in_batches(samples: np.ndarray, rows: int) -> Iterable[np.ndarray]:
    """``samples`` in batches of ``rows``, the last of which may be short."""
    return (samples[start : start + rows] for start in range(0, len(samples), rows))
