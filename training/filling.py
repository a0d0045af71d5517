"""Filling a store of teacher outputs ahead of training, and comparing what it holds with the teacher.

Work goes by blocks of samples, for these share nothing with others: any machine may do any of them, in any order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from statistics import fmean
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from dataset.loader import TrainLoader
from models.outputs import FOUND, in_float32
from stored.layouts import prior_of
from stored.store import PRIOR
from training.stored import Precision, Stored
from utils.console import progress
from utils.errors import DataError

_ROWS = 256  # records that are made at once
_CHECKED = 64  # samples of an epoch that are compared
_APART = 0.02  # largest mean distance between distributions that are the same but for rounding


def fill(
    stored: Stored,
    loader: TrainLoader,
    epochs: Sequence[int],
    precision: Precision,
    part: tuple[int, int] = (0, 1),
    *,
    shown: bool = True,
) -> int:
    """Compute and write what the store lacks of ``epochs``.

    Args:
        stored: with its teacher.
        loader: of the views, on the teacher's device.
        epochs: of views, from 0.
        precision: makes the context that the teacher runs in.
        part: do the blocks ``i, i + n, ...`` for (i, n).
        shown: whether there is a progress bar.

    Returns:
        How many views the teacher has looked at.

    Raises:
        DataError: an image or a block is damaged, or the disk is full.
    """
    store, first = stored.store, stored.views[0]
    blocks = range(part[0], store.blocks, part[1])
    lacking = {block: _lacking(stored, block, epochs) for block in blocks}
    unprepared = [block for block in blocks if stored.record.needs_prior and not _has(stored, PRIOR, block)]
    work = {block: set(lacking[block]) for block in blocks}
    for block in unprepared:
        work[block].update(range(stored.priors))
    todo = sum(len(store.of_block(block)) * len(seen) for block, seen in work.items())
    with progress(total=todo, desc=f"outputs of {first} views", unit="view", disable=not shown or not todo) as bar:
        for block in blocks:
            one = _Block(stored, loader, block, precision, bar.update)
            if block in unprepared:
                one.make_priors()
            for epoch in lacking[block]:
                one.write(epoch)
    return todo


class Difference(NamedTuple):
    """How stored outputs of some samples differ from the teacher's.

    Attributes:
        samples: how many were compared.
        changed: the mean over them of the distance (`Record.apart`, 0 to 1) between what is stored and what would be
            stored now; 0 but for rounding.
    """

    samples: int
    changed: float


def compare(stored: Stored, loader: TrainLoader, epoch: int, precision: Precision) -> Difference:
    """Compare stored views of ``epoch``, which the teacher begins, with the teacher.

    Raises:
        DataError: they differ by more than rounding; the one that differs most is named.
    """
    changed: dict[int, float] = {}  # by sample, the most of its views
    for batch, given in stored.look(loader, epoch, _spread(stored), precision):
        for view in stored.views:
            now = stored.decoded(stored.encoded(given[view], batch, view), batch.index, view)
            distances = stored.record.apart(stored.stored(view, batch.index), now)
            for sample, distance in zip(batch.index.tolist(), distances.tolist()):
                changed[sample] = max(distance, changed.get(sample, 0.0))
    average = fmean(changed.values())
    if not average <= _APART:
        worst = max(changed, key=changed.__getitem__)
        raise DataError(
            f"{stored.store.path}: stored outputs of epoch {epoch + 1} differ from the teacher's by {average:.3f} on "
            f"the average of {len(changed)} samples, most for sample {worst}: they were made of other pixels or "
            "weights than these. Give another folder"
        )
    return Difference(len(changed), average)


def losses(
    stored: Stored, loader: TrainLoader, epoch: int, precision: Precision, temperatures: Iterable[float]
) -> dict[float, float]:
    """What the layout loses: the mean KL divergence, nats, of what is kept to the teacher, by temperature."""
    given, kept = [], []
    for batch, outputs in stored.look(loader, epoch, _spread(stored), precision):
        for view in stored.views:
            given.append(in_float32(outputs[view].logits))
            kept.append(stored.decoded(stored.encoded(outputs[view], batch, view), batch.index, view).logits)
    live, decoded = torch.cat(given).double(), torch.cat(kept).double()
    result = {}
    for one in temperatures:
        pair = (decoded / one).log_softmax(1), (live / one).log_softmax(1)
        result[one] = float(F.kl_div(*pair, reduction="batchmean", log_target=True))
    return result


class Detections(NamedTuple):
    """What a store keeps of a detector's, of some views.

    Attributes:
        found: how many a view has, on the average.
        kept: how many of these are kept.
        sure: how many of those have a score or more, by that score.
        pixels: largest distance of a coordinate that is kept from the detector's own.
        score: likewise of scores.
    """

    found: float
    kept: float
    sure: dict[float, float]
    pixels: float
    score: float


def detections(
    stored: Stored, loader: TrainLoader, epoch: int, precision: Precision, scores: Iterable[float]
) -> Detections:
    """What the layout keeps of a detector's outputs, and what it loses of those."""
    given, kept = [], []
    for batch, outputs in stored.look(loader, epoch, _spread(stored), precision):
        for view in stored.views:
            given.append(outputs[view].context)
            kept.append(stored.decoded(stored.encoded(outputs[view], batch, view), batch.index, view).context)
    live, decoded = ({name: torch.cat([one[name] for one in all]) for name in FOUND} for all in (given, kept))
    there = decoded["classes"] >= 0  # [n, N], of [n, D]
    views = len(there)
    lost = {name: (live[name][:, : there.shape[1]] - decoded[name]).abs().max() for name in ("boxes", "scores")}
    return Detections(
        float((live["classes"] >= 0).sum()) / views,
        float(there.sum()) / views,
        {one: float((there & (decoded["scores"] >= one)).sum()) / views for one in scores},
        float(lost["boxes"]),
        float(lost["scores"]),
    )


def _spread(stored: Stored) -> np.ndarray:
    """The samples that are compared, at equal distances."""
    samples = stored.store.samples
    return np.linspace(0, samples - 1, min(_CHECKED, samples)).astype(np.int64)


def _lacking(stored: Stored, block: int, epochs: Iterable[int]) -> list[int]:
    return [epoch for epoch in epochs if not _has(stored, epoch, block)]


def _has(stored: Stored, epoch: int, block: int) -> bool:
    return all(stored.store.read(view, epoch, block) is not None for view in stored.views)


class _Block:
    """The work on one block of samples; what the teacher gave for the priors serves their epochs too."""

    def __init__(
        self, stored: Stored, loader: TrainLoader, block: int, precision: Precision, report: Callable[[int], object]
    ) -> None:
        self._stored, self._loader, self._block = stored, loader, block
        self._precision, self._report = precision, report
        self._samples = stored.store.of_block(block)
        self._known: dict[int, _Given] = {}

    def make_priors(self) -> None:
        self._known = {epoch: self._look(epoch) for epoch in range(self._stored.priors)}
        for view in self._stored.views:
            prior = prior_of([given.kept[view]["logits"] for given in self._known.values()])
            self._stored.store.write(view, PRIOR, self._block, prior.cpu().numpy().view(np.uint8))

    def write(self, epoch: int) -> None:
        given = self._known.pop(epoch, None) or self._look(epoch)
        for view, kept in given.kept.items():
            prior = self._prior(view, next(iter(kept.values())).device)
            records = [
                self._stored.record.encode(
                    {name: value[rows] for name, value in kept.items()},
                    None if given.labels is None else given.labels[rows],
                    None if prior is None else prior[rows],
                )
                for rows in (slice(start, start + _ROWS) for start in range(0, len(self._samples), _ROWS))
            ]
            self._stored.store.write(view, epoch, self._block, torch.cat(records).cpu().numpy())

    def _prior(self, view: str, device: torch.device) -> Tensor | None:
        if not self._stored.record.needs_prior:
            return None
        prior = self._stored.store.read(view, PRIOR, self._block)
        assert prior is not None
        return torch.from_numpy(prior.view(np.int8)).to(device)

    def _look(self, epoch: int) -> _Given:
        """What the teacher gives for all samples of the block; zeros for those that are skipped."""
        kept: dict[str, dict[str, Tensor]] = {}
        labels: Tensor | None = None
        for batch, given in self._stored.look(self._loader, epoch, self._samples, self._precision):
            rows = batch.index - int(self._samples[0])
            for view, one in given.items():
                for name, value in self._stored.record.kept(one).items():
                    whole = kept.setdefault(view, {})
                    if name not in whole:
                        whole[name] = value.new_zeros(len(self._samples), *value.shape[1:])
                    whole[name].index_copy_(0, rows, value)
            if (known := batch.targets.get("labels")) is not None:
                labels = known.new_zeros(len(self._samples)) if labels is None else labels
                labels.index_copy_(0, rows, known)
            self._report(len(rows))
        return _Given(kept, labels)


class _Given(NamedTuple):
    """What is kept of a teacher's outputs for the views of a block in one epoch, by view, and the labels of its
    samples."""

    kept: dict[str, dict[str, Tensor]]
    labels: Tensor | None
