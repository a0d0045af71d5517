"""Which samples a rank sees, as a pure function of (seed, epoch, rank, world): no state, so nothing to restore."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np


def epoch_order(seed: int, epoch: int, samples: int) -> np.ndarray:
    """The permutation of ``range(samples)`` that every rank follows in ``epoch``; int64 [samples]."""
    generator = np.random.Generator(np.random.Philox(key=[seed, epoch]))
    return generator.permutation(samples)


def training_batches(
    seed: int, epoch: int, samples: int, batch_size: int, rank: int, world: int, first: int = 0
) -> Iterator[np.ndarray]:
    """This rank's share of each global batch from batch ``first`` on; int64 [batch_size / world].

    The global batches are the same for any ``world``. The ``samples % batch_size`` samples that do not fill the last
    batch sit this epoch out, others in every epoch.
    """
    assert batch_size % world == 0
    order, share = epoch_order(seed, epoch, samples), batch_size // world
    for batch in range(first, samples // batch_size):
        start = batch * batch_size + rank * share
        yield order[start : start + share]


def evaluation_batches(samples: int, batch_size: int, rank: int, world: int) -> Iterator[np.ndarray]:
    """This rank's samples ``rank, rank + world, ...``, each once; the last batch may be short."""
    mine = np.arange(rank, samples, world)
    for start in range(0, len(mine), batch_size):
        yield mine[start : start + batch_size]
