"""Run by test_neighbours.py: features that are spread unevenly over two ranks; prints the score of each."""

import multiprocessing
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from batches import batch_of
from torch import distributed as dist

from evaluation.neighbours import Neighbours
from models.outputs import Outputs


def sample(images=41, classes=4, seed=0):
    """Features [N, 6], some of which are the same, and labels [N]."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, classes, (images,), generator=generator)
    features = torch.randint(-2, 3, (images, 6), generator=generator).float()
    return features + 3 * torch.eye(classes, 6)[labels], labels


def added(features, labels, parts, nearest=5):
    """The metrics to which the samples of ``parts`` (lists of their numbers) are added, a batch a part."""
    metrics = Neighbours(torch.device("cpu"), nearest)
    for part in parts:
        index = torch.as_tensor(part, dtype=torch.int64)
        images = torch.zeros(len(part), 3, 1, 1, dtype=torch.uint8)
        given = Outputs(torch.empty(0), {"pooled": features[index]})
        metrics.add(given, batch_of(images, labels[index], index=index))
    return metrics


def join(rank, folder):
    """Be a rank of two, and print what it finds: of different numbers of samples, of none on one, without features."""
    dist.init_process_group("gloo", init_method=f"file://{folder / 'meet'}", rank=rank, world_size=2)
    uneven = [[range(0, 41, 3)], [range(40, 0, -3), range(2, 41, 3)]][rank]
    for parts in (uneven, [[], [range(41)]][rank]):
        print(added(*sample(), parts).compute(), flush=True)
    metrics = added(*sample(), [range(rank, 41, 2)])
    if rank:
        metrics.add(Outputs(torch.empty(0)), batch_of(torch.zeros(1, 3, 1, 1), torch.zeros(1, dtype=torch.int64)))
    print(metrics.compute(), flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    fork = multiprocessing.get_context("fork")  # which imports torch once
    processes = [fork.Process(target=join, args=(rank, Path(sys.argv[1]))) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    sys.exit(max(abs(process.exitcode) for process in processes))
