"""What of a device's memory a run needs, and for what, by its config.

    python -m benchmarks.memory [--cfg config.py] [key=value ...]

Takes one step of the last phase of the last run as `train_with_distillation.py` does with the same words, and counts
bytes, on a CPU as on a GPU: weights, gradients and the optimizer's state, the teachers, a batch, and what the forward
pass keeps for the backward pass, which grows with `data.batch_size` over ranks and `train_params.accumulate`. On a GPU
`peak` is what was really allocated at most; elsewhere the sum, to which kernels add their work space. Networks begin
with random weights, which neither change the sizes nor must be there. It leaves nothing behind.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.common import show
from benchmarks.headspace import recipe
from dataset.loader import TrainLoader
from networks import build_distiller, open_splits
from training.loop import Trainer
from training.run_folder import RunFolder
from training.state import State
from training.step import step_on
from utils.console import exit_with_its_code
from utils.distributed import Ranks


@exit_with_its_code
def main() -> None:
    """Take a step, and print a line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cfg", type=Path, default=Path("imagenet_train_cfg.py"), help="config of the run")
    options, overrides = parser.parse_known_args()
    cfg = recipe(options.cfg, overrides)
    ranks, task = Ranks(0, 1, torch.device("cuda" if torch.cuda.is_available() else "cpu")), cfg.made_task()
    train, _ = open_splits(cfg.data, task)
    targets = task.targets(train.classes)
    with closing(TrainLoader(train, cfg.data, cfg.train_params.seed, 0, 1, ranks.device, targets)) as loader:
        distiller = build_distiller(cfg, train, ranks)
        state = State(distiller, cfg.phases, cfg.train_params, task, RunFolder(cfg.folder), ranks)
        state.begin(len(cfg.phases) - 1)
        distiller.train()
        batch = next(loader.epoch(0))
        part = batch.chunk(cfg.train_params.accumulate)[0]
        known = Sizes([*distiller.parameters(), *distiller.buffers(), *batch.images.values(), *batch.targets.values()])
        kept = Sizes()
        module = Trainer(state, loader, state.run).wrapped()
        if ranks.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(ranks.device)
        state.params = replace(state.params, accumulate=1)
        with torch.autograd.graph.saved_tensors_hooks(kept.with_tensor, lambda tensor: tensor):
            step_on(state, module, part, 0.0)
    optimizer = [one for values in state.optimizer.state.values() for one in values.values() if torch.is_tensor(one)]
    trained = [parameter for parameter in distiller.parameters() if parameter.requires_grad]
    teachers = Sizes([*distiller.teachers.parameters(), *distiller.teachers.buffers()])
    others = Sizes([*distiller.parameters(), *distiller.buffers()])
    sizes = {
        "student": others.total - teachers.total,
        "gradients": Sizes(trained).total,
        "optimizer": Sizes(optimizer).total,
        "teachers": teachers.total,
        "batch": Sizes([*batch.images.values()]).total,
        "for_backward": sum(size for place, size in kept.of.items() if place not in known.of),
    }
    peak = torch.cuda.max_memory_allocated(ranks.device) if ranks.device.type == "cuda" else sum(sizes.values())
    shown = {f"{name}_mb": round(size / 2**20, 1) for name, size in {**sizes, "peak": peak}.items()}
    show("memory", {"run": cfg.name, "images": len(part.index), "amp": cfg.train_params.amp, **shown})


class Sizes:
    """Bytes of tensors, each piece of memory once.

    Attributes:
        of: bytes, by where they begin.
    """

    def __init__(self, tensors: Iterable[Tensor] = ()) -> None:
        self.of: dict[int, int] = {}
        for tensor in tensors:
            self.with_tensor(tensor)

    def with_tensor(self, tensor: Tensor) -> Tensor:
        """Count ``tensor`` too, and return it."""
        memory = tensor.untyped_storage()
        self.of[memory.data_ptr()] = memory.nbytes()
        return tensor

    @property
    def total(self) -> int:
        """Bytes of all."""
        return sum(self.of.values())


if __name__ == "__main__":
    main()
