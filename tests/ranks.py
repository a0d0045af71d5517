"""Run under torchrun by test_training.py: what two ranks compute together, written for comparison with one process."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from batches import batch_of
from torch import nn

import tasks
from knowledge_distiller import KnowledgeDistiller, Term
from models.outputs import IMAGENET, Outputs
from models.zoo import Network
from objectives.ofd import Ofd
from teachers import Live
from training.loop import TrainConfig, Trainer
from training.optimizer import OptimConfig
from training.phases import Phase
from training.state import State
from training.step import step_on
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
        return Outputs(self.fc(pooled), {"pooled": pooled, "label_embeddings": pooled[:, None] * self.fc.weight})


MULTI_LABEL = {
    "bce": Term("bce"),
    "sum": Term("bce", 0.1, options={"reduction": "sum"}),
    "mld": Term("mld", 2.0),
    "asymmetric": Term("asymmetric", 0.5),
    "squared_error": Term("squared_error", 0.1, options={"reduction": "sum"}),
    "embeddings": Term("label_embeddings", options={"class_aware": 0.0, "instance_aware": 1.0}),
}
TERMS = {"cross_entropy": Term("cross_entropy"), "wsld": Term("wsld", 2.5), "kd": Term("kd", 0.5)}


def parameters_after_a_step(place, terms=TERMS, **settings):
    """The student's parameters after one step on a fixed global batch, of which each rank takes its share."""
    student = after_a_step(place, terms, **settings).student
    return torch.cat([parameter.detach().flatten() for parameter in student.parameters()])


def memory_after_a_step(place):
    """What CRD remembers of the global batch."""
    terms = {"crd": Term("crd", options={"contrasts": 4, "dimensions": 6})}
    return after_a_step(place, terms).matches["crd"].function.memory


def bias_after_a_step(place):
    """Where LSHFM's hyperplanes lie after the global batch."""
    terms = {"lshfm": Term("lshfm", options={"hashes": 6, "bias": "mean"})}
    return after_a_step(place, terms).matches["lshfm"].function.bias


def margin_after_a_step(place):
    """What OFD measures of the global batch."""
    torch.manual_seed(0)
    maps = torch.randn(BATCH, 3, 4, 4)
    ofd = Ofd([maps], [maps], [None])
    share = maps.chunk(place.world)[place.rank]
    ofd([share], [share])
    return ofd.margin0


def after_a_step(place, terms, **settings):
    torch.manual_seed(0)
    student, teacher = (Network(Plain(), IMAGENET, 5, ["pooled", "label_embeddings"]) for _ in range(2))
    example, labels = torch.zeros(2, 3, 8, 8, dtype=torch.uint8), torch.arange(BATCH) % 5
    distiller = KnowledgeDistiller(student, {"teacher": Live(teacher)}, terms, example, labels)
    images = torch.randint(0, 256, (BATCH, 3, 9, 9), dtype=torch.uint8)
    present = (torch.arange(BATCH)[:, None] * 7 % torch.arange(2, 7) < 2).to(torch.int8)
    batch = batch_of(images, torch.arange(BATCH) % 5, present=present)
    chosen = ("grad_clip", "optimizer", "nesterov")
    optim = OptimConfig(**{name: settings.pop(name) for name in chosen if name in settings})
    phases = {"distillation": Phase(1, terms, optim)}
    state = State(distiller, phases, TrainConfig(**settings), tasks.get("single_label"), None, place)
    step_on(state, Trainer(state, None, None).wrapped(), batch.chunk(place.world)[place.rank], 0.1)
    return distiller


def everything(place):
    """What must not depend on the number of ranks."""
    return {
        "sgd": parameters_after_a_step(place),
        "dot": parameters_after_a_step(place, optimizer="dot", nesterov=False),
        "memory of crd": memory_after_a_step(place),
        "bias of lshfm": bias_after_a_step(place),
        "margin of ofd": margin_after_a_step(place),
        "multi-label": parameters_after_a_step(place, MULTI_LABEL),
        "multi-label in parts": parameters_after_a_step(place, MULTI_LABEL, accumulate=2),
    }


if __name__ == "__main__":
    with ranks(10) as place:
        results = everything(place)
        if place.first:
            torch.save(results, sys.argv[1])
