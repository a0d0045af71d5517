"""What runs do about the stores of their teachers: priors and a check first, then every epoch read or filled."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from dataset.loader import TrainLoader
from training.filling import compare, fill
from training.settings import TrainConfig
from training.step import autocast
from training.stored import Precision, Stored
from utils.distributed import Ranks, barrier, on_first, print_on_first


class Keeping:
    """What a run does about the stores of its teachers, if it has some.

    Args:
        teachers: all of the run's, or of several that share them, on their device.
        loader: of its training batches.
        params: how networks compute.
        ranks: this one among all.
        folder: the run's; what is not whole yet is named after it.
    """

    def __init__(
        self,
        teachers: Mapping[str, object],
        loader: TrainLoader,
        params: TrainConfig,
        ranks: Ranks,
        folder: Path,
    ) -> None:
        self._stored = {name: one for name, one in teachers.items() if isinstance(one, Stored)}
        self._loader, self._ranks = loader, ranks
        self._precision: Precision = partial(autocast, params, ranks.device)
        self._name = f"{zlib.crc32(str(folder.resolve()).encode()):08x}_{ranks.rank}"

    def prepare(self) -> None:
        """Before the first step: make the priors that are missing, and compare some of what is stored with the teacher,
        where it is at hand.

        Raises:
            DataError: a block is damaged, or not what the teacher gives.
        """
        for name, stored in self._stored.items():
            if stored.live is None:
                print_on_first(f"teachers.{name}: not built, its outputs are all in {stored.store.path}")
                continue
            if stored.record.needs_prior:
                first = stored.epochs[: stored.priors]  # looked at for the priors in any case
                part = self._ranks.rank, self._ranks.world
                fill(stored, self._loader, first, self._precision, part, shown=self._ranks.first)
                barrier()
            whole = stored.whole(stored.epochs)
            print_on_first(
                f"teachers.{name}: {len(whole)} of {len(stored.epochs)} epochs are in {stored.store.path}; the others "
                "are computed, and kept there"
            )
            if whole:
                on_first(partial(self._check, stored, whole[0]), self._ranks)

    def begin(self, epoch: int) -> None:
        """Read what there is of the views of ``epoch``."""
        for stored in self._stored.values():
            stored.begin(self._loader.views_of(epoch), self._ranks.device)

    def save(self, step: int) -> None:
        """Before a checkpoint: write what it would otherwise lose."""
        for stored in self._stored.values():
            stored.keep(f"{self._name}_{step:09d}")

    def end(self, step: int) -> None:
        """After an epoch: make blocks of what was computed."""
        for stored in self._stored.values():
            stored.end(self._loader, self._precision, self._ranks, f"{self._name}_{step:09d}")

    def _check(self, stored: Stored, epoch: int) -> None:
        stored.begin(epoch, self._ranks.device)
        if not stored.fills:
            compare(stored, self._loader, epoch, self._precision)
