"""Which samples a rank sees, as a pure function of (seed, epoch, rank, world): no state, so nothing to restore."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np

_RUN, _OPEN_RUNS = 256, 64  # records of a run, and runs that are read at a time: about 2 GB of ImageNet


def epoch_order(
    seed: int, epoch: int, shards: Sequence[int], kind: str = "shuffle", open_shards: int = 16
) -> np.ndarray:
    """The permutation of the samples of ``shards`` that every rank follows in ``epoch``; int64 [samples].

    Args:
        seed: of the run.
        epoch: from 0.
        shards: how many records each holds.
        kind: `shuffle`, uniform over all permutations; or `blocks`, for data larger than memory. Then shards are
            shuffled and read ``open_shards`` at a time; of those, runs of 256 neighbouring records are shuffled, and
            samples among 64 consecutive runs. So a disk reads long stretches, memory need only hold 64 runs, and only a
            few shards need be at hand. Where runs begin is drawn anew for each epoch.
        open_shards: for `blocks`.
    """
    generator = np.random.Generator(np.random.Philox(key=[seed, epoch]))
    if kind == "shuffle":
        return generator.permutation(sum(shards))
    order = [np.empty(0, np.int64)]
    for group in shard_groups(seed, epoch, len(shards), open_shards):
        runs = [run for shard in group for run in _runs(shards, shard, generator)]
        shuffled = [runs[number] for number in generator.permutation(len(runs))]
        windows = (shuffled[start : start + _OPEN_RUNS] for start in range(0, len(shuffled), _OPEN_RUNS))
        order += [generator.permutation(np.concatenate(window)) for window in windows]
    return np.concatenate(order)


def shard_groups(seed: int, epoch: int, shards: int, open_shards: int) -> list[list[int]]:
    """The shards, ``open_shards`` or fewer, that order `blocks` reads at a time, in turn."""
    shuffled = np.random.Generator(np.random.Philox(key=[seed, epoch]).jumped()).permutation(shards).tolist()
    return [shuffled[start : start + open_shards] for start in range(0, shards, open_shards)]


def _runs(shards: Sequence[int], shard: int, generator: np.random.Generator) -> list[np.ndarray]:
    start, count = sum(shards[:shard]), shards[shard]
    edges = np.unique([0, *range(int(generator.integers(_RUN)), count, _RUN), count])
    return [np.arange(start + first, start + end) for first, end in itertools.pairwise(edges)]


def repeated(order: np.ndarray, batch_size: int, repeats: int) -> np.ndarray:
    """An epoch of repeated augmentation, int64 [whole batches * batch_size]: copy c of sample i is number i + c N.

    Each batch shows ``batch_size / repeats`` samples, all of them once, then all again; so ranks, whose shares of a
    batch lie one behind the other, have different copies, as far as there are as many ranks. Those at the end of the
    order sit the epoch out, others in every epoch. Hoffer et al., Augment Your Batch, CVPR 2020, arXiv 1901.09335; the
    length of an epoch is that of DeiT's sampler (Touvron et al., ICML 2021, arXiv 2012.12877).

    Args:
        order: of all N samples, of `epoch_order`.
        batch_size: over all ranks; a multiple of ``repeats``.
        repeats: how often a batch shows a sample.
    """
    batches, distinct = len(order) // batch_size, batch_size // repeats
    shown = order[: batches * distinct].reshape(batches, 1, distinct)
    return (shown + len(order) * np.arange(repeats)[:, None]).reshape(-1)


def by_shape(
    order: np.ndarray, sizes: np.ndarray, batch_size: int, stretches: Sequence[int] | None = None
) -> np.ndarray:
    """``order`` with batches of images of similar shapes, as far as they go; int64 [samples], a permutation of it.

    As torchvision's detection references group by aspect ratio, in bins of a third of an octave. What is left of the
    bins is behind, in batches of neighbouring bins; samples that do not fill the last batch stay at the end.

    Args:
        order: int64 [samples], of `epoch_order`.
        sizes: height and width of every image of the split, int [N, 2].
        batch_size: over all ranks.
        stretches: lengths of parts of the order that stay one behind the other, such as groups of shards; all of it is
            one when not given.
    """
    bins = np.digitize(np.log2(sizes[:, 1] / sizes[:, 0]), np.linspace(-1, 1, 7))
    ends = np.cumsum([0, *(stretches or [len(order)])])
    both = np.concatenate([ends // batch_size, -(-ends // batch_size)])  # before and behind a batch of two stretches
    edges = batch_size * np.unique(both.clip(max=len(order) // batch_size))
    parts = [_by_bin(order[start:end], bins, batch_size) for start, end in itertools.pairwise(edges)]
    return np.concatenate([*parts, order[edges[-1] :]])


def _by_bin(order: np.ndarray, bins: np.ndarray, batch_size: int) -> np.ndarray:
    """``order``, whole batches of it, with batches of one of eight ``bins``, int [N], and what is left behind."""
    bins = bins[order]
    full: list[tuple[int, np.ndarray]] = []  # the place in the order where a batch is complete, and its places
    rest: list[np.ndarray] = []
    for number in range(8):
        places = np.flatnonzero(bins == number)
        end = len(places) - len(places) % batch_size
        full += [(int(batch[-1]), batch) for batch in places[:end].reshape(-1, batch_size)]
        rest.append(places[end:])
    batches = [places for _, places in sorted(full, key=lambda one: one[0])]
    return order[np.concatenate([*batches, *rest])]


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


def with_partners(order: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Samples and those that they are mixed with, one behind the other, as training batches of ``order`` have them.

    Args:
        order: of an epoch, int64 [N].
        index: samples, int64 [B].

    Returns:
        int64 [B, 2]: each pair in its order. The last sample of an odd number is its own partner: it sits this epoch
        out.
    """
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    first = place[index] & ~1
    return np.stack([order[first], order[np.minimum(first + 1, len(order) - 1)]], 1)


def evaluation_batches(canvases: np.ndarray, batch_size: int, rank: int, world: int) -> Iterator[np.ndarray]:
    """This rank's samples ``rank, rank + world, ...``, each once, a batch those of one canvas; some may be short.

    Args:
        canvases: height and width of each sample's, int [N, 2]; so what surrounds an image is the same on any number of
            ranks.
        batch_size: the largest.
        rank: of this process.
        world: number of ranks.
    """
    _, group = np.unique(canvases, axis=0, return_inverse=True)
    mine = np.arange(rank, len(canvases), world)
    for number in np.unique(group[mine]):
        alike = mine[group[mine] == number]
        for start in range(0, len(alike), batch_size):
            yield alike[start : start + batch_size]
