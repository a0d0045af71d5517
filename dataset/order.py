"""Which samples a rank sees, as a pure function of (seed, epoch, rank, world): no state, so nothing to restore."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np

_BLOCK, _OPEN_BLOCKS = 256, 64  # records of a block, and blocks that are read at a time: about 2 GB of ImageNet


def epoch_order(seed: int, epoch: int, samples: int, kind: str = "shuffle") -> np.ndarray:
    """The permutation of ``range(samples)`` that every rank follows in ``epoch``; int64 [samples].

    ``kind`` is ``shuffle``, uniform over all permutations, or ``blocks``: neighbouring records form blocks of 256, the
    blocks are shuffled, and samples are shuffled among 64 consecutive blocks at a time, so that a disk reads long
    stretches and memory need only hold those blocks. Where blocks begin is drawn anew for each epoch.
    """
    generator = np.random.Generator(np.random.Philox(key=[seed, epoch]))
    if kind == "shuffle":
        return generator.permutation(samples)
    begin = int(generator.integers(_BLOCK))
    edges = np.unique(np.concatenate([[0], np.arange(begin, samples, _BLOCK), [samples]]))
    blocks = [np.arange(start, end) for start, end in itertools.pairwise(edges)]
    shuffled = [blocks[number] for number in generator.permutation(len(blocks))]
    windows = (shuffled[start : start + _OPEN_BLOCKS] for start in range(0, len(shuffled), _OPEN_BLOCKS))
    return np.concatenate([generator.permutation(np.concatenate(window)) for window in windows])


def training_batches(order: np.ndarray, batch_size: int, rank: int, world: int, first: int = 0) -> Iterator[np.ndarray]:
    """This rank's share of each global batch of ``order`` from batch ``first`` on; int64 [batch_size / world].

    The global batches are the same for any ``world``. The samples that do not fill the last batch sit this epoch out,
    others in every epoch.
    """
    assert batch_size % world == 0
    share = batch_size // world
    for batch in range(first, len(order) // batch_size):
        start = batch * batch_size + rank * share
        yield order[start : start + share]


def evaluation_batches(samples: int, batch_size: int, rank: int, world: int) -> Iterator[np.ndarray]:
    """This rank's samples ``rank, rank + world, ...``, each once; the last batch may be short."""
    mine = np.arange(rank, samples, world)
    for start in range(0, len(mine), batch_size):
        yield mine[start : start + batch_size]
