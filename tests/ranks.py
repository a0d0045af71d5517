"""Run under torchrun by test_training.py: what two ranks compute together, written for comparison with one process."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from torch import nn

from knowledge_distiller import KnowledgeDistiller, Term
from models.outputs import IMAGENET, Outputs
from models.zoo import Network
from training.loop import TrainConfig, Trainer
from training.optimizer import OptimConfig
from training.phases import Phase
from utils.distributed import ranks

BATCH = 8


class Plain(nn.Module):
    """Without batch norm, so that a batch may be divided."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.fc = nn.Linear(8, 5)

    def forward(self, images):
        pooled = self.conv(images).relu().mean((2, 3))
        return Outputs(self.fc(pooled), {"pooled": pooled})


class Loader:
    batches, batch_size = 1, BATCH


TERMS = {"cross_entropy": Term("cross_entropy"), "wsld": Term("wsld", 2.5), "kd": Term("kd", 0.5)}


def parameters_after_a_step(place, **settings):
    """The student's parameters after one step on a fixed global batch, of which each rank takes its share."""
    student = after_a_step(place, TERMS, **settings).student
    return torch.cat([parameter.detach().flatten() for parameter in student.parameters()])


def memory_after_a_step(place):
    """What CRD remembers of the global batch."""
    terms = {"crd": Term("crd", options={"contrasts": 4, "dimensions": 6})}
    return after_a_step(place, terms).matches["crd"].function.memory


def after_a_step(place, terms, **settings):
    torch.manual_seed(0)
    student, teacher = (Network(Plain(), IMAGENET, 5, ["pooled"]) for _ in range(2))
    example, labels = torch.zeros(2, 3, 8, 8, dtype=torch.uint8), torch.arange(BATCH) % 5
    distiller = KnowledgeDistiller(student, {"teacher": teacher}, terms, example, labels)
    images = torch.randint(0, 256, (BATCH, 3, 9, 9), dtype=torch.uint8)
    batch = {"images": images, "labels": torch.arange(BATCH) % 5, "index": torch.arange(BATCH)}
    mine = {name: values.chunk(place.world)[place.rank] for name, values in batch.items()}
    chosen = ("grad_clip", "optimizer", "nesterov")
    optim = OptimConfig(**{name: settings.pop(name) for name in chosen if name in settings})
    trainer = Trainer(distiller, Loader(), {"only": Phase(1, terms, optim)}, TrainConfig(**settings), None, place)
    trainer.step_on(trainer.wrapped(), mine, 0.1)
    return distiller


def everything(place):
    """What must not depend on the number of ranks."""
    return {
        "sgd": parameters_after_a_step(place),
        "dot": parameters_after_a_step(place, optimizer="dot", nesterov=False),
        "memory of crd": memory_after_a_step(place),
    }


if __name__ == "__main__":
    with ranks(10) as place:
        results = everything(place)
        if place.first:
            torch.save(results, sys.argv[1])
