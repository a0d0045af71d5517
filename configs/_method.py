"""What an entry of the table of methods holds, and the recipe and the lines of text that it makes."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from knowledge_distiller import Term
from recipe import Recipe
from teachers import TeacherConfig
from training.optimizer import OptimConfig
from training.phases import Phase
from utils.errors import UsageError

Pair = tuple[str, str]  # teacher, or ALONE, and student
Terms = dict[str, Term]

ALONE = "none"
_WIDTH = 118


class Published(NamedTuple):
    """Scores of others: who published them, and top-1, per cent, by pair."""

    by: str
    scores: dict[Pair, float]


UNPUBLISHED = Published("", {})


@dataclass(frozen=True)
class Before:
    """A phase before the last, at a constant rate."""

    epochs: int
    terms: Terms
    init_lr: float | None = None
    """that of the last phase when not given"""
    trainable: tuple[str, ...] = ()

    def phase(self, optim: OptimConfig) -> Phase:
        """What it is, given the optimizer of the last phase."""
        rate = optim.init_lr if self.init_lr is None else self.init_lr
        return Phase(self.epochs, self.terms, replace(optim, milestones=(), init_lr=rate), self.trainable)


@dataclass(frozen=True)
class Setup:
    """A method on one data set: what it changes in plain training there."""

    terms: Terms | Callable[[str, str], Terms]
    """parts of the loss beside the hard loss of the task, or a function of teacher and student that gives them"""
    published: Published = UNPUBLISHED
    remark: str = ""
    """on the terms, or the rest"""
    labels: float = 1.0
    """weight of the hard loss, 0 for none"""
    before: Mapping[str, Before] = field(default_factory=dict)
    """phases before this one"""
    trainable: tuple[str, ...] = ()
    """as in Phase"""
    teachers: tuple[str, ...] = ("teacher",)
    """overrides that name one, such as teacher=...; the first is part of the run's name"""
    teacher: Mapping[str, Any] = field(default_factory=dict)
    """further settings of the teachers' networks"""
    student: Callable[[str, str], Mapping[str, Any]] = lambda teacher, student: {}
    """further settings of the student's network, given the names of teacher and student"""
    batch_size: int | None = None
    """the rate goes with it"""
    epochs: int | None = None
    rate: float | Callable[[str, str], float] = 1.0
    """times the usual learning rate, or a function of teacher and student that gives it"""
    optim: Mapping[str, Any] = field(default_factory=dict)
    """further settings of the optimizer"""
    task: str = ""
    """in place of that of plain training"""
    name: str = ""
    """of the run, such as {data}_{student}; data set, student, method and teacher when not given"""

    def recipe(
        self,
        plain: Recipe,
        method: str,
        student: str,
        teachers: Mapping[str, str],
        usual: Mapping[str, str],
        network: Callable[[str], TeacherConfig],
    ) -> Recipe:
        """The run of a method.

        Args:
            plain: training of the student alone, in one phase without terms; called as the data set.
            method: its name.
            student: its name.
            teachers: names by override, empty where none was given.
            usual: the names that stand for those.
            network: a teacher by its name.

        Raises:
            UsageError: a teacher is named that the method has no use for.
        """
        for key, name in teachers.items():
            if name and key not in self.teachers:
                raise UsageError(f"{key}={name}: method={method} has no such teacher")
        plain = replace(plain, task=self.task or plain.task)
        names = {key: teachers[key] or usual[key] for key in self.teachers}
        teacher = names.get("teacher", ALONE)
        terms = self.terms if isinstance(self.terms, dict) else self.terms(teacher, student)
        if self.labels:
            hard = plain.made_task().hard_loss
            terms = {hard: Term(hard, self.labels), **terms}
        batch = self.batch_size or plain.data.batch_size
        factor = self.rate(teacher, student) if callable(self.rate) else self.rate
        rate = plain.last.optim.init_lr * batch / plain.data.batch_size * factor
        optim = replace(plain.last.optim, init_lr=rate, **self.optim)
        phases = {name: one.phase(optim) for name, one in self.before.items()}
        last = Phase(self.epochs or plain.last.epochs, terms, optim, self.trainable)
        default = "{data}_{student}_{method}_{teacher}" if self.teachers else "{data}_{student}_{method}"
        named = {"data": plain.name, "student": student.removeprefix("timm/"), "method": method, "teacher": teacher}
        strong_view = any("strong" in term.views for term in terms.values())
        return replace(
            plain,
            name=(self.name or default).format(**named),
            data=replace(plain.data, batch_size=batch, strong_view=strong_view),
            student=replace(plain.student, **self.student(teacher, student)),
            teachers={key: replace(network(name), **self.teacher) for key, name in names.items()},
            phases={**phases, "distillation" if self.teachers else "training": last},
        )


@dataclass(frozen=True)
class Method:
    """A published method."""

    source: str
    """what it is, and its paper"""
    on: dict[str, Setup]
    """by data set"""


def method(source: str, **on: Setup) -> Method:
    """An entry of the table, its set-ups by data set."""
    return Method(source, on)


def setups(methods: Mapping[str, Method], data: str) -> dict[str, Setup]:
    """The methods that there are for a data set."""
    return {name: method.on[data] for name, method in methods.items() if data in method.on}


def listed(methods: Mapping[str, Method], data: str = "") -> str:
    """The methods for a data set, or for all, with their papers and the scores that were published."""
    lines = [f"Methods: --cfg configs/{data or '...'}.py method=NAME [teacher=...] [student=...]; top-1 as published"]
    for name, method in methods.items():
        if on := {one: setup for one, setup in method.on.items() if data in ("", one)}:
            lines += ["", *textwrap.wrap(f"{name:18} {method.source}", _WIDTH, subsequent_indent=" " * 19)]
        for one, setup in on.items():
            text = "; ".join(filter(None, (_scores(setup.published), setup.remark))) or "no published score"
            lines += textwrap.wrap(
                text, _WIDTH, initial_indent=f"{'':19}{one}: ", subsequent_indent=" " * 21, break_on_hyphens=False
            )
    return "\n".join(lines)


def _scores(published: Published) -> str:
    scores = [f"{'/'.join(pair).removeprefix(f'{ALONE}/')} {top1:.2f}" for pair, top1 in published.scores.items()]
    return f"{', '.join(scores)} ({published.by})" if scores else ""
