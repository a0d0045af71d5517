"""The facade: a student, its teachers, and the weighted terms of the loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from dataset.feed.batch import Batch
from models.outputs import Outputs
from models.zoo import Network
from objectives.contract import reach_everything
from teachers import Teacher, Views, WithNetwork, together
from terms import Match, Term, example_of
from utils.errors import UsageError

__all__ = ["Distilled", "KnowledgeDistiller", "Term"]


class KnowledgeDistiller(nn.Module):
    """Runs the networks and adds up the terms; everything trainable is inside, so one DDP around it is enough.

    Args:
        student: what is trained.
        teachers: by the name that terms refer to.
        terms: the parts of the loss, by the name they are logged under.
        example: images uint8 [B, 3, H, W], by which stages are paired and objectives with parameters are sized.
        all_labels: int64 [N], of the whole training split, for objectives that remember samples.
        competing: whether classes compete (softmax), or each is by itself (sigmoid): what an ensemble averages.

    Raises:
        UsageError: there is no term, or one names an unknown objective, option or teacher, or does not fit them.
    """

    fixed: Sequence[nn.Module] = ()  # parts that stay in eval mode though they may be trained
    _active: list[Match]
    _teachers: list[Teacher | None]  # of each
    _weights: Tensor  # [number of terms]
    _with_teacher: Tensor  # [number of terms], 1 for those that read a teacher

    def __init__(
        self,
        student: Network,
        teachers: Mapping[str, WithNetwork],
        terms: Mapping[str, Term],
        example: Tensor,
        all_labels: Tensor | None = None,
        *,
        competing: bool = True,
    ) -> None:
        super().__init__()
        self.student = student
        self.teachers = nn.ModuleDict(cast(dict[str, nn.Module], dict(teachers)))
        networks = {"student": student, **{name: teacher.network for name, teacher in teachers.items()}}
        sizes = example_of(networks, example, all_labels)
        read = {name: [teachers[one] for one in term.teachers_read if one in teachers] for name, term in terms.items()}
        classes = student.classes or [*map(str, range(student.num_classes))]
        self._together = {
            name: together(those, classes, f"terms.{name}", competing=competing) for name, those in read.items()
        }
        matches: dict[str, Match] = {}
        for name, term in terms.items():
            places = None if (one := self._together[name]) is None else one.places
            some = any(teacher.places is not None for teacher in read[name])
            matches[name] = Match(name, term, sizes, places, knows_some=some)
        self.matches = nn.ModuleDict(matches)
        # Buffers and not numbers, so that a ramp does not recompile the graph.
        self.register_buffer("_weights", torch.empty(0), persistent=False)
        self.register_buffer("_with_teacher", torch.empty(0), persistent=False)
        self.begin(terms)

    def begin(self, terms: Mapping[str, Term]) -> None:
        """Learn from ``terms``, of those that the distiller was built with, from now on; their weights and ramps count.

        Raises:
            UsageError: there is no term.
        """
        if not terms:
            raise UsageError("terms: a loss needs at least one")
        self.terms = dict(terms)
        self._active = [cast(Match, self.matches[name]) for name in terms]
        self._teachers = [self._together[name] for name in terms]
        with_teacher = [match.objective.needs_teacher for match in self._active]
        self._with_teacher = torch.tensor(with_teacher, dtype=torch.float32, device=self._weights.device)
        self._weights = torch.empty_like(self._with_teacher)
        self.set_epoch(1)

    @property
    def reaches_everything(self) -> bool:
        """Whether the loss has a gradient for all that is trained."""
        reached = any(any(map(reach_everything, match.objective.reads_of("student"))) for match in self._active)
        return reached and (self.student.origin is None or self.student.origin.whole)

    @property
    def reads_teacher(self) -> bool:
        """Whether a term reads a teacher."""
        return any(match.teachers for match in self._active)

    def train(self, mode: bool = True) -> KnowledgeDistiller:
        """Switch to training or evaluation; what is not trained stays in eval mode."""
        super().train(mode)
        for part in (self.student, self.matches):
            for module in part.modules():
                parameters = list(module.parameters())
                if parameters and not any(parameter.requires_grad for parameter in parameters):
                    module.eval()
        for module in self.fixed:
            module.eval()
        return self

    def divide(self, parts: int) -> None:
        """Expect batches in so many parts, over ranks and accumulated ones, whose mean the loss is: sums are whole."""
        for match in self.matches.values():
            cast(Match, match).parts = parts

    def set_epoch(self, epoch: float) -> None:
        """Bring the ramps, and objectives that change with time, to ``epoch``, counted from 1."""
        self._weights.copy_(torch.tensor([term.factor(epoch) for term in self.terms.values()]))
        for match in self._active:
            match.set_epoch(epoch)

    def set_seed(self, seed: int) -> None:
        """Give objectives that draw alike on all ranks the number of a step, or of what stands for one."""
        for match in self._active:
            match.set_seed(seed)

    def forward(self, batch: Batch, shared: Views | None = None) -> Distilled:
        """What the student and its terms give for a batch; of teachers what is ``shared`` with other students."""
        views = Views(batch, shared)
        wanted = sorted({"weak"}.union(*(match.views for match in self._active)), reverse=True)
        student = {view: views.through(self.student, view) for view in wanted}
        given = [
            {view: views.outputs_of(teacher, view, student[view]) for view in match.views if teacher is not None}
            for match, teacher in zip(self._active, self._teachers)
        ]
        with torch.autocast(batch.index.device.type, enabled=False):  # objectives compute in float32 or better
            values = [match(student, teacher, batch) for match, teacher in zip(self._active, given)]
            weighted = torch.stack(values) * self._weights
        sound: dict[str, Tensor] = {}
        for name, teacher in self.teachers.items():
            for outputs in views.all_outputs_of(cast(Teacher, teacher)):
                sound[name] = outputs.is_finite() & sound.get(name, True)
        shown = {name: value.detach() for name, value in zip(self.terms, values)}
        return Distilled(shown, weighted, self._with_teacher, student["weak"].detached(), sound)


class Distilled(NamedTuple):
    """What a batch gives.

    Attributes:
        values: of the terms by name, unweighted scalars, to be shown.
        weighted: [number of terms], the same times their weights, to be learned from.
        with_teacher: [number of terms], 1 for those that read a teacher.
        student: its outputs for the weak view, without features, for the task's scores.
        sound: of each teacher by name, whether all that it gives is finite.
    """

    values: dict[str, Tensor]
    weighted: Tensor
    with_teacher: Tensor
    student: Outputs
    sound: dict[str, Tensor]

    @property
    def loss(self) -> Tensor:
        """The sum of the weighted terms, scalar."""
        return self.weighted.sum()

    @property
    def loss_of_teachers(self) -> Tensor:
        """That of the terms which read a teacher, scalar."""
        return (self.weighted * self.with_teacher).sum()
