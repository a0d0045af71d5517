"""The facade: a student, frozen teachers, and the weighted terms of the loss."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

import objectives
from models.outputs import Normalization, Outputs
from models.zoo import Network
from utils.errors import UsageError


@dataclass(frozen=True)
class Term:
    """One weighted part of the loss."""

    objective: str
    """its objective: cross_entropy, kd, wsld, or one of your own"""
    weight: float = 1.0
    """what it is multiplied by in the sum"""
    teacher: str | tuple[str, ...] = "teacher"
    """the teacher it compares with; several names are an ensemble whose probabilities are averaged"""
    options: dict[str, float] = field(default_factory=dict)
    """the objective's own parameters, such as temperature"""
    ramp: tuple[tuple[float, float], ...] = ()
    """(epoch, factor) points on the weight, linear between them; the first epoch is 1"""


class KnowledgeDistiller(nn.Module):
    """Runs the networks and adds up the terms; everything trainable is inside, so one DDP around it is enough.

    Raises:
        UsageError: there is no term, or one names an unknown objective, option or teacher; class counts differ.
    """

    _weights: Tensor  # [number of terms]

    def __init__(self, student: Network, teachers: Mapping[str, Network], terms: Mapping[str, Term]) -> None:
        super().__init__()
        if not terms:
            raise UsageError("terms: a loss needs at least one")
        self.student = student
        self.teachers = nn.ModuleDict(teachers)
        self.terms = dict(terms)
        self._objectives = {name: _checked(name, term, student, teachers) for name, term in terms.items()}
        self.teachers.requires_grad_(False).eval()
        # A buffer and not numbers, so that a ramp does not recompile the graph.
        self.register_buffer("_weights", torch.empty(len(terms)), persistent=False)
        self.set_epoch(1)

    def train(self, mode: bool = True) -> KnowledgeDistiller:
        """Switch the student; teachers stay in eval mode."""
        super().train(mode)
        self.teachers.eval()
        return self

    def set_epoch(self, epoch: float) -> None:
        """Move the ramps to ``epoch``, counted from 1."""
        self._weights.copy_(torch.tensor([term.weight * _factor(term.ramp, epoch) for term in self.terms.values()]))

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The loss of a batch.

        Args:
            batch: "images" uint8 [B, 3, H, W], "labels" int64 [B], "index" int64 [B].

        Returns:
            "loss", the weighted sum; each term under its own name, unweighted scalars; "logits" [B, K], the student's.
        """
        normalised: dict[Normalization, Tensor] = {}
        student = self._run(self.student, batch["images"], normalised)
        with torch.no_grad():  # not inference_mode: objectives save teacher tensors for the backward pass
            teachers = {name: self._run(net, batch["images"], normalised) for name, net in self.teachers.items()}
        with torch.autocast(batch["images"].device.type, enabled=False):  # objectives compute in float32 or better
            values = [
                objective.function(*_inputs(objective, term, student, teachers, batch), **term.options)
                for term, objective in zip(self.terms.values(), self._objectives.values())
            ]
            loss = (torch.stack(values) * self._weights).sum()
        return {"loss": loss, **dict(zip(self.terms, values)), "logits": student.logits}

    def _run(self, network: nn.Module, images: Tensor, normalised: dict[Normalization, Tensor]) -> Outputs:
        assert isinstance(network, Network)
        if network.normalization not in normalised:
            normalised[network.normalization] = network.normalize(images)
        return network(normalised[network.normalization])


def _factor(ramp: tuple[tuple[float, float], ...], epoch: float) -> float:
    return float(np.interp(epoch, [point[0] for point in ramp], [point[1] for point in ramp])) if ramp else 1.0


def _checked(name: str, term: Term, student: Network, teachers: Mapping[str, Network]) -> objectives.Objective:
    objective = objectives.get(term.objective)
    if name in ("loss", "logits"):
        raise UsageError(f"terms.{name}: the result has a {name} of its own; give the term another name")
    epochs = [point[0] for point in term.ramp]
    if epochs != sorted(epochs):
        raise UsageError(f"terms.{name}.ramp: its epochs must rise, not {epochs}")
    if unknown := set(term.options) - set(objective.options):
        raise UsageError(f"terms.{name}: {objective.name} has no option {sorted(unknown)}; it has {objective.options}")
    if len(_names(term.teacher)) > 1 and objective.reads != "logits":
        raise UsageError(f"terms.{name}: only logits can be averaged over teachers, not {objective.reads}")
    for teacher in _names(term.teacher) if objective.needs_teacher else ():
        if teacher not in teachers:
            raise UsageError(f"terms.{name}.teacher: no teacher {teacher!r}; there is {', '.join(teachers) or 'none'}")
        outputs = teachers[teacher].num_classes
        if objective.reads == "logits" and outputs != student.num_classes:
            raise UsageError(f"terms.{name}: {teacher} has {outputs} outputs, the student {student.num_classes}")
    return objective


def _inputs(
    objective: objectives.Objective,
    term: Term,
    student: Outputs,
    teachers: dict[str, Outputs],
    batch: dict[str, Tensor],
) -> list[Tensor]:
    def given(name: str) -> Tensor:
        if name == "student":
            return _full(student.read(objective.reads))
        if name == "teacher":
            return _average([_full(teachers[teacher].read(objective.reads)) for teacher in _names(term.teacher)])
        return batch[name]

    return [given(name) for name in objective.inputs]


def _average(logits: list[Tensor]) -> Tensor:
    """Logits of the averaged probabilities; each [B, K] -> [B, K]."""
    if len(logits) == 1:
        return logits[0]
    return torch.stack([z.log_softmax(1) for z in logits]).logsumexp(0) - np.log(len(logits))


def _full(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def _names(teacher: str | tuple[str, ...]) -> tuple[str, ...]:
    return (teacher,) if isinstance(teacher, str) else teacher
