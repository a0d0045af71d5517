"""Run by test_multi_label_scores.py: multi-label scores of samples that are spread unevenly over two ranks."""

import json
import multiprocessing
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from batches import batch_of
from torch import distributed as dist

from evaluation.multi_label import MultiLabel
from models.outputs import Outputs
from utils.distributed import gather
from utils.errors import DataError

CLASSES = ["person", "dog", "dining table", "Straße/é", "never"]


def sample(images, seed=0):
    """Logits with ties and int8 targets [N, C]; the last class is never present."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randint(-4, 5, (images, len(CLASSES)), generator=generator) / 2
    targets = torch.randint(-1, 2, (images, len(CLASSES)), generator=generator).to(torch.int8)
    targets[:, -1] = 0
    return logits, targets


def added(logits, targets, parts, **options):
    """Scores to which the samples of ``parts`` (lists of their numbers) are added, a batch a part."""
    metrics = MultiLabel(torch.device("cpu"), CLASSES[-logits.shape[1] :], **options)
    for part in parts:
        index = torch.as_tensor(part, dtype=torch.int64)
        images = torch.zeros(len(part), 3, 1, 1, dtype=torch.uint8)
        metrics.add(Outputs(logits[index]), batch_of(images, index=index, present=targets[index]))
    return metrics


def on_two_ranks(rank):
    """What a rank finds where it has a third of the samples or two, where one has none, and where none has any."""
    data = sample(41)
    uneven = [[range(0, 41, 3)], [range(40, 0, -3), range(2, 41, 3)]][rank]
    one_has_none = [[], [range(41)]][rank]
    found = []
    for parts in (uneven, one_has_none, []):
        try:
            metrics = added(*data, parts)
            found.append([metrics.compute(), metrics.rows()])
        except DataError as error:
            found.append(str(error))
    return found


def join(rank, folder):
    """Be a rank of two, and write what both find."""
    dist.init_process_group("gloo", init_method=f"file://{folder / 'meet'}", rank=rank, world_size=2)
    both = gather(on_two_ranks(rank))
    if rank == 0:
        (folder / "both.json").write_text(json.dumps(both))
    dist.destroy_process_group()


if __name__ == "__main__":
    fork = multiprocessing.get_context("fork")  # which imports torch once
    processes = [fork.Process(target=join, args=(rank, Path(sys.argv[1]))) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    sys.exit(max(abs(process.exitcode) for process in processes))
