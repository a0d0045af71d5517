"""Laws that every component of a kind keeps."""

import torch


def resumes_exactly(make, epoch=2):
    """From any batch of an epoch on, on any number of ranks, a loader gives what one gave that had begun at the first.

    Args:
        make: (rank, world) -> a new `TrainLoader` of 3 batches or more, to be closed here.
        epoch: which.
    """
    whole = _batches(make(0, 1), epoch, 0)
    assert len(whole) >= 3
    for first, world in ((1, 1), (len(whole) - 1, 1), (1, 2), (2, 4)):
        shares = [_batches(make(rank, world), epoch, first) for rank in range(world)]
        rest = [{name: torch.cat([part[name] for part in parts]) for name in parts[0]} for parts in zip(*shares)]
        assert len(rest) == len(whole) - first
        for resumed, begun in zip(rest, whole[first:], strict=True):
            assert resumed.keys() == begun.keys()
            for name in begun:
                assert torch.equal(resumed[name], begun[name]), (name, first, world)


def _batches(loader, epoch, first):
    try:
        return [{name: tensor.clone() for name, tensor in batch.items()} for batch in loader.epoch(epoch, first)]
    finally:
        loader.close()
