"""The facade: a student, frozen teachers, and the weighted terms of the loss."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from dataset.feed.batch import Batch
from models.outputs import Outputs
from models.zoo import Network, fitting_input
from objectives.contract import are_logits
from teachers import Live, Views, as_one
from terms import Example, Match, Term
from utils.errors import UsageError

__all__ = ["Distilled", "KnowledgeDistiller", "Term"]


class Distilled(NamedTuple):
    """What a batch gives.

    Attributes:
        values: of the terms by name, unweighted scalars.
        weighted: [number of terms], the same times their weights.
        taught: [number of terms], 1 for those that look at a teacher.
        student: its outputs for the weak view.
        sound: of each teacher by name, whether its logits are finite.
    """

    values: dict[str, Tensor]
    weighted: Tensor
    taught: Tensor
    student: Outputs
    sound: dict[str, Tensor]

    @property
    def loss(self) -> Tensor:
        """The sum of the weighted terms, scalar."""
        return self.weighted.sum()

    @property
    def loss_of_teachers(self) -> Tensor:
        """That of those which look at a teacher, scalar."""
        return (self.weighted * self.taught).sum()


class KnowledgeDistiller(nn.Module):
    """Runs the networks and adds up the terms; everything trainable is inside, so one DDP around it is enough.

    Args:
        student: what is trained.
        teachers: by the name that terms refer to.
        terms: the parts of the loss, by the name they are logged under.
        example: images uint8 [B, 3, H, W], by which stages are paired and objectives with parameters are sized.
        all_labels: int64 [N], of the whole training split, for objectives that remember samples.

    Raises:
        UsageError: there is no term, or one names an unknown objective, option or teacher, or does not fit them.
    """

    _weights: Tensor  # [number of terms]
    _taught: Tensor  # [number of terms], 1 for those that look at a teacher

    def __init__(
        self,
        student: Network,
        teachers: Mapping[str, Live],
        terms: Mapping[str, Term],
        example: Tensor,
        all_labels: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.student = student
        self.teachers = nn.ModuleDict(teachers)
        networks = {"student": student, **{name: teacher.network for name, teacher in teachers.items()}}
        looked = _look(networks, example, all_labels)
        self.matches = nn.ModuleDict({name: Match(name, term, looked) for name, term in terms.items()})
        self._parameters_by_name = self._named()
        # Buffers and not numbers, so that a ramp does not recompile the graph.
        self.register_buffer("_weights", torch.empty(0), persistent=False)
        self.register_buffer("_taught", torch.empty(0), persistent=False)
        self.begin(terms)

    def begin(self, terms: Mapping[str, Term], trainable: tuple[str, ...] = ()) -> None:
        """Learn from ``terms``, of those that the distiller was built with, from now on.

        Args:
            terms: by name; their weights and ramps count.
            trainable: beginnings of the names of what is trained: `student.layer4`, `terms.crd`; everything when empty.
                Terms left out are frozen. Modules without a trainable parameter are in eval mode.

        Raises:
            UsageError: there is no term, or nothing of a name in ``trainable``.
        """
        if not terms:
            raise UsageError("terms: a loss needs at least one")
        idle = [f"terms.{name}" for name in self.matches if name not in terms]
        movable = [name for name in self._parameters_by_name if not any(_is_below(name, one) for one in idle)]
        for start in trainable:
            if not any(_is_below(name, start) for name in movable):
                parts = [name.split(".") for name in movable]
                known = dict.fromkeys(".".join(part[:depth]) for part in parts for depth in range(1, len(part) + 1))
                near = difflib.get_close_matches(start, known, n=3, cutoff=0.3) or ["student"]
                raise UsageError(f"trainable: nothing to train is called {start}; near: {', '.join(near)}")
        moved = {name for name in movable if not trainable or any(_is_below(name, start) for start in trainable)}
        for name, parameter in self._parameters_by_name.items():
            parameter.requires_grad_(name in moved)
        self.terms = dict(terms)
        self._active = {name: self._match(name) for name in terms}
        taught = [match.objective.needs_teacher for match in self._active.values()]
        self._taught = torch.tensor(taught, dtype=torch.float32, device=self._weights.device)
        self._weights = torch.empty_like(self._taught)
        self.set_epoch(1)
        self.train(self.training)

    @property
    def reaches_everything(self) -> bool:
        """Whether the loss has a gradient for all that is trained."""
        return any(any(map(are_logits, match.objective.reads_of("student"))) for match in self._active.values())

    @property
    def is_taught(self) -> bool:
        """Whether a term looks at a teacher."""
        return any(match.teachers for match in self._active.values())

    def train(self, mode: bool = True) -> KnowledgeDistiller:
        """Switch to training or evaluation; what is not trained stays in eval mode."""
        super().train(mode)
        for part in (self.student, self.matches):
            for module in part.modules():
                parameters = list(module.parameters())
                if parameters and not any(parameter.requires_grad for parameter in parameters):
                    module.eval()
        return self

    def set_epoch(self, epoch: float) -> None:
        """Move the ramps, and objectives that change with time, to ``epoch``, counted from 1."""
        self._weights.copy_(torch.tensor([term.factor(epoch) for term in self.terms.values()]))
        for match in self._active.values():
            match.set_epoch(epoch)

    def forward(self, batch: Batch) -> Distilled:
        """What the student and its terms give for a batch."""
        views, matches = Views(batch), list(self._active.values())
        seen = sorted({"weak"}.union(*(match.views for match in matches)), reverse=True)
        student = {view: views.through(self.student, view) for view in seen}
        given = [self._given(match, views, student) for match in matches]
        with torch.autocast(batch.index.device.type, enabled=False):  # objectives compute in float32 or better
            values = [match(student, teacher, batch) for match, teacher in zip(matches, given)]
            weighted = torch.stack(values) * self._weights
        sound = {}
        for name, teacher in self.teachers.items():
            for outputs in views.all_given_by(teacher):
                sound[name] = outputs.logits.isfinite().all()
        return Distilled(dict(zip(self.terms, values)), weighted, self._taught, student["weak"], sound)

    def _given(self, match: Match, views: Views, student: Mapping[str, Outputs]) -> dict[str, Outputs]:
        """What the teacher of a term gives, by view; nothing for a term without one."""
        if not match.teachers:
            return {}
        teacher = as_one([self.teachers[name] for name in match.teachers])
        return {view: views.given_by(teacher, view, student[view]) for view in match.views}

    def _match(self, name: str) -> Match:
        match = self.matches[name]
        assert isinstance(match, Match)
        return match

    def _named(self) -> dict[str, nn.Parameter]:
        """All that can be trained, by the names that pages use."""
        named = {f"student.{name}": parameter for name, parameter in self.student.network.named_parameters()}
        for name, match in self.matches.items():
            for path, parameter in match.named_parameters():
                named[f"terms.{name}.{path.removeprefix('function.')}"] = parameter
        return {name: parameter for name, parameter in named.items() if parameter.requires_grad}


def _is_below(name: str, start: str) -> bool:
    return name == start or name.startswith(f"{start}.")


@torch.no_grad()
def _look(networks: dict[str, Network], images: Tensor, all_labels: Tensor | None) -> Example:
    """What each network gives for an example, in eval mode: no statistics of a network may change."""
    modes = {name: network.training for name, network in networks.items()}
    normalised = {name: network.eval().normalize(images) for name, network in networks.items()}
    outputs: dict[str, Outputs] = {}
    for name, network in networks.items():
        with fitting_input(name, network.network, images.shape[-1]):
            outputs[name] = network(normalised[name])
    for name, network in networks.items():
        network.train(modes[name])
    return Example(networks, normalised, outputs, all_labels)
