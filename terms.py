"""A term of the loss: its settings, and its objective, which is given what it asks for by name."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from traceback import format_exception
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

import objectives
from dataset.feed.batch import Batch
from models.outputs import Outputs, in_float32
from models.rest import Rest, can_go_on
from models.taps import norms_before, pair_stages
from models.zoo import Network, fitting_input
from objectives.contract import STAGES, are_logits, view_of
from objectives.logits import standardize
from utils.errors import ExpectedError, UsageError
from utils.options import check_options
from utils.settings import check, setting

Given = Mapping[str, Mapping[str, Outputs]]  # of student and teacher: what each gives, by view
Option = float | bool | str
_TARGETS = frozenset(("labels", "present", "boxes", "classes"))  # of the tasks here
# What a line of the log holds beside the terms; `stage` is what phases were called.
_TAKEN = (
    *("loss", "kind", "time", "seconds", "phase", "stage", "epoch", "step", "lr"),
    *("images_per_second", "data_wait"),
)


@dataclass(frozen=True)
class Term:
    """One weighted part of the loss."""

    objective: str
    """its objective: cross_entropy, kd, wsld, or one of your own"""
    weight: float = setting(1.0, least=0)
    """what it is multiplied by in the sum"""
    teacher: str | tuple[str, ...] = "teacher"
    """the teacher it compares with; several names are an ensemble whose probabilities are averaged"""
    options: dict[str, Option] = field(default_factory=dict)
    """the objective's own parameters, such as temperature"""
    ramp: tuple[tuple[float, float], ...] = setting((), least=0, rising=True)
    """(epoch, factor) points on the weight, linear between them; the first epoch is 1"""
    stages: tuple[tuple[str, str], ...] = ()
    """student's and teacher's stages to compare, such as (("stage2", "stage2"),); of equal resolution when not given"""
    view: Literal["weak", "strong"] = "weak"
    """which view of the images it compares: weak, as they are cropped, or strong (data.strong_view)"""
    standardize: bool = False
    """shift and scale each sample's logits to mean 0 and standard deviation 1 first"""

    @property
    def teachers(self) -> tuple[str, ...]:
        """Names of the teachers."""
        return (self.teacher,) if isinstance(self.teacher, str) else self.teacher

    @property
    def teachers_read(self) -> tuple[str, ...]:
        """Names of the teachers that it reads."""
        return self.teachers if objectives.get(self.objective).needs_teacher else ()

    def asks(self, network: Literal["student", "teacher"]) -> set[str]:
        """What the `student` or the `teacher` is asked for: as its objective has it, and other maps that it names."""
        objective, side = objectives.get(self.objective), 0 if network == "student" else 1
        named = {pair[side] for pair in self.stages if objective.paired}
        return objective.asks(network) | {name for name in named if not re.fullmatch(rf"{objective.paired}\d+", name)}

    @property
    def views(self) -> set[str]:
        """The views of the images that it compares."""
        objective = objectives.get(self.objective)
        return {self.view} | objective.views_of("student") | objective.views_of("teacher")

    @property
    def defaults(self) -> dict[str, Any]:
        """The options of its objective that have a default, each with it."""
        options = objectives.get(self.objective).options
        return {name: option.default for name, option in options.items() if not option.is_required}

    @property
    def takes_logits_for(self) -> str:
        """What it takes logits for: `softmax` or `sigmoid`; any where it does not read them."""
        objective = objectives.get(self.objective)
        read = objective.reads_of("student") | objective.reads_of("teacher")
        return objective.logits if any(map(are_logits, read)) else "any"

    @property
    def targets_read(self) -> set[str]:
        """Names of the targets that it cannot do without."""
        objective = objectives.get(self.objective)
        return {*objective.inputs} & _TARGETS - objective.optional

    @property
    def needs_labels(self) -> bool:
        """Whether it cannot do without the class of each image."""
        return "labels" in self.targets_read or "all_labels" in objectives.get(self.objective).parameters

    @property
    def knows_no_mixing(self) -> bool:
        """Whether it cannot do with the two targets of mixed images."""
        inputs = objectives.get(self.objective).inputs
        return any(name in inputs and f"other_{name}" not in inputs for name in _TARGETS)

    def factor(self, epoch: float) -> float:
        """The weight in an epoch, counted from 1."""
        ramp = self.ramp or ((1, 1),)
        return self.weight * float(np.interp(epoch, [point[0] for point in ramp], [point[1] for point in ramp]))


def features_of(terms: Iterable[Term]) -> tuple[set[str], dict[str, set[str]]]:
    """What is asked of the student, and of each teacher that a term reads, by its name: features, logits, and of
    detectors what else they give."""
    student: set[str] = set()
    teachers: dict[str, set[str]] = {}
    for term in terms:
        student |= term.asks("student")
        for name in term.teachers_read:
            teachers.setdefault(name, set()).update(term.asks("teacher"))
    return student, teachers


@dataclass(frozen=True)
class Example:
    """What objectives with parameters are sized by.

    Attributes:
        networks: the student, by the name `student`, and the teachers.
        images: [B, 3, H, W] for each, normalised.
        outputs: of each on its images, in eval mode.
        all_labels: int64 [N], of the whole training split, where it is known.
    """

    networks: Mapping[str, Network]
    images: Mapping[str, Tensor]
    outputs: Mapping[str, Outputs]
    all_labels: Tensor | None


@torch.no_grad()
def example_of(networks: dict[str, Network], images: Tensor, all_labels: Tensor | None) -> Example:
    """What each network gives for ``images``, uint8 [B, 3, H, W], in eval mode: no statistics of one may change."""
    modes = {name: network.training for name, network in networks.items()}
    normalised = {name: network.eval().normalize(images) for name, network in networks.items()}
    outputs: dict[str, Outputs] = {}
    for name, network in networks.items():
        with fitting_input(name, network.network, images.shape[-1]):
            outputs[name] = network(normalised[name])
    for name, network in networks.items():
        network.train(modes[name])
    return Example(networks, normalised, outputs, all_labels)


class Match(nn.Module):
    """A term's objective, sized for its networks; it looks at the classes at ``places`` alone, those its teachers know.

    With ``knows_some`` each of its teachers knows some of the classes.

    Raises:
        UsageError: they do not go together.
    """

    places: Tensor | None  # of those classes among the student's; None for all
    parts = 1  # that a batch is divided into, over ranks and accumulated ones; the loss is the mean of theirs

    def __init__(
        self, name: str, term: Term, example: Example, places: Tensor | None = None, *, knows_some: bool = False
    ) -> None:
        super().__init__()
        self.name, self.term, self.objective = name, term, objectives.get(term.objective)
        self.teachers = term.teachers_read
        self.views = term.views
        self.register_buffer("places", places, persistent=False)
        self._check(example.networks, knows_some=knows_some)
        owner, key = self.objective, f"terms.{name}.options"
        options = check_options(owner.options, term.options, key=key, owner=owner.name)
        self.paired = self.objective.paired
        self.pairs = self._pairs(example.outputs) if self.paired else []
        self._check_rest(example)
        self.compares_regions = bool(self.objective.reads_of("student") & {"logits", "pooled", "box_deltas"})
        reduction = options.get("reduction", term.defaults.get("reduction"))
        self.is_sum = self.objective.summed or reduction == "sum"
        made = self.objective.made
        if isinstance(made, type):
            examples = [self._example(parameter, example) for parameter in self.objective.sized_by]
            self.function = self._called(made, *examples, **options)
        else:
            self.function = partial(made, **options)

    def forward(self, student: Mapping[str, Outputs], teacher: Mapping[str, Outputs], batch: Batch) -> Tensor:
        """The unweighted value on a batch; scalar.

        Args:
            student: what it gives, by view.
            teacher: likewise; of several the ensemble.
            batch: what they give it for.

        Raises:
            UsageError: the objective asks for what a batch has not, raises, or returns something else than a scalar.
        """
        if self.places is not None:
            student = {view: outputs.of_classes(self.places) for view, outputs in student.items()}
            batch = batch.of_classes(self.places)
        if self._lacks_regions(student):
            return student[self.term.view].logits.sum()  # of nothing: zero
        given = {"student": student, "teacher": teacher}
        inputs = [self._given(parameter, given, batch) for parameter in self.objective.inputs]
        value = self._called(self.function, *inputs)
        if not isinstance(value, Tensor) or value.ndim:
            found = f"a tensor {list(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
            raise UsageError(f"terms.{self.name}: {self.objective.name} must return a scalar tensor, not {found}")
        return value * self.parts if self.is_sum else value

    def set_epoch(self, epoch: float) -> None:
        """Bring an objective that changes with time to ``epoch``."""
        if hasattr(self.function, "set_epoch"):
            self.function.set_epoch(epoch)

    def set_seed(self, seed: int) -> None:
        """Give an objective that draws alike on all ranks the number of a step."""
        if hasattr(self.function, "set_seed"):
            self.function.set_seed(seed)

    def _lacks_regions(self, student: Mapping[str, Outputs]) -> bool:
        """Whether it compares regions, and the student's detector looks at none: all lie in what is to be ignored."""
        regions = student[self.term.view].context.get("regions")
        return self.compares_regions and regions is not None and not len(regions)

    def _called(self, made: Callable[..., Any], *inputs: Any, **options: Any) -> Any:
        """The objective's function or constructor; what goes wrong in it names the term."""
        try:
            return made(*inputs, **options)
        except (torch.OutOfMemoryError, *ExpectedError):
            raise
        except Exception as error:
            if self.objective.is_ours and not isinstance(error, ValueError):
                raise
            raise UsageError(self._explained(error)) from error

    def _explained(self, error: Exception) -> str:
        """What went wrong in the objective; of one's own also where, above the line that names the term."""
        term, name, text = f"terms.{self.name}", self.objective.name, str(error)
        if "more than 1 value per channel" in text:  # torch's message
            return f"{term}: {name} normalises over the batch: data.batch_size must give each rank two samples or more"
        if text.partition("=")[0] in self.objective.options:
            return f"{term}.options.{text}"
        if self.objective.is_ours:
            return f"{term}: {text}"
        where = "".join(format_exception(error)[2:])  # from its function on
        return f"\n{where}{term}: {name} raised {type(error).__name__}: {text}"

    def _given(self, parameter: str, given: Given, batch: Batch) -> Any:
        network, what = self.objective.place(parameter)
        if network == "batch":
            if what in batch:
                return batch[what]
            if what in (made := given["student"][self.term.view].context):  # labels of the regions that it looks at
                return made[what]
            if parameter in self.objective.optional:
                return None
            known = ", ".join(["student", "teacher", *batch.named])
            raise UsageError(f"terms.{self.name}: {self.objective.name} asks for {what!r}; there is {known}")
        return self._of_network(network, what, given)

    def _of_network(self, network: str, what: str, given: Given) -> Any:
        outputs = given[network][view_of(what) or self.term.view]
        if what in STAGES:
            return [self._read(outputs, network, feature) for feature in self._stages(network, what)]
        if what == "rest" and outputs.rest is not None:
            return partial(self._rest, network, outputs.rest)
        value = self._read(outputs, network, "logits" if are_logits(what) else what)
        return standardize(value) if are_logits(what) and self.term.standardize else value

    def _rest(self, network: str, rest: Rest, number: int, given: Tensor) -> tuple[list[Tensor], Tensor, Tensor]:
        """What a network makes of a map in the place of its own stage of a pair: stages behind, `last` and logits."""
        features = self._stages(network, "stages")
        made = rest(features[number], given)
        behind = [self._read(made, network, feature) for feature in features[number + 1 :]]
        logits = self._of_network(network, "logits", {network: {self.term.view: made}})
        return behind, self._read(made, network, "last"), logits

    def _read(self, outputs: Outputs, network: str, what: str) -> Any:
        """A tensor of the student or the teacher, in float32 at least, or `losses_on`."""
        if what == "losses_on" and outputs.losses_on is not None:
            return outputs.losses_on
        if what != "logits" and what not in outputs.features and what not in outputs.context:
            name = "student" if network == "student" else " and ".join(self.term.teachers)
            known = ", ".join(["logits", *outputs.features, *outputs.context])
            raise UsageError(f"terms.{self.name}: {self.objective.name} reads {what} of {name}, which has {known}")
        return in_float32(outputs.read(what))

    def _stages(self, network: str, what: str) -> list[str]:
        """Features of one network: its side of the pairs."""
        side = 0 if network == "student" else 1  # torch 2.10 does not compile a boolean here
        return [STAGES[what].replace(f"{self.paired}*", pair[side]) for pair in self.pairs]

    def _example(self, parameter: str, example: Example) -> Any:
        network, what = self.objective.place(parameter)
        if parameter == "all_labels":
            if example.all_labels is None:
                raise UsageError(f"terms.{self.name}: {self.objective.name} needs the labels of the whole split")
            return example.all_labels
        name = "student" if network == "student" else self.term.teachers[0]
        if what == "norms":
            features = self._stages(network, "stages_pre")
            norms = norms_before(example.networks[name], example.images[name], features)
            return [norms[feature] for feature in features]
        outputs = example.outputs[name]
        if self.places is not None and network == "student":
            outputs = outputs.of_classes(self.places.cpu())
        return self._of_network(network, what, {network: dict.fromkeys(self.views, outputs)})

    def _pairs(self, outputs: Mapping[str, Outputs]) -> list[tuple[str, str]]:
        other = self.term.teachers[0] if self.objective.needs_teacher else "student"
        student, teacher = outputs["student"].features, outputs[other].features
        for pair in self.term.stages:
            for name, features in zip(pair, (student, teacher)):
                if not {name, f"{name}_pre"} & features.keys():
                    raise UsageError(f"terms.{self.name}.stages: no {name}; there is {', '.join(features)}")
        try:
            return list(self.term.stages) or pair_stages(student, teacher, self.objective.paired)
        except UsageError as error:
            raise UsageError(f"terms.{self.name}: {self.objective.name}: {error}") from None

    def _check_rest(self, example: Example) -> None:
        """That networks whose later layers are run on other maps read nothing else there."""
        for who, name in (("student", "student"), ("teacher", self.term.teachers[0])):
            for stage in self._stages(who, "stages") if "rest" in self.objective.reads_of(who) else ():
                network, given = example.networks[name], example.outputs[name].features[stage]
                if not can_go_on(network, example.images[name], stage, given):
                    raise UsageError(
                        f"terms.{self.name}: {self.objective.name} goes on from {stage} of {name}, which is not what "
                        f"its later layers read, or not all: name others in terms.{self.name}.stages, of cifar_wrn_* "
                        "stage1_sum and stage2_sum"
                    )

    def _check(self, networks: Mapping[str, Network], *, knows_some: bool) -> None:
        name, term, objective = f"terms.{self.name}", self.term, self.objective
        check(term, f"{name}.")
        if self.name in _TAKEN or "." in self.name or hasattr(nn.ModuleDict, self.name):
            raise UsageError(
                f"{name}: give the term another name (not {', '.join(_TAKEN)}, no dot, no part of torch's)"
            )
        if not term.teachers:
            raise UsageError(f"{name}.teacher: a name, or several")
        reads = objective.reads_of("teacher")
        all_reads = reads | objective.reads_of("student")
        if term.standardize and (objective.logits == "dense" or not any(map(are_logits, all_reads))):
            raise UsageError(f"{name}.standardize: {objective.name} has no use for logits")
        if term.view in objective.views_of("student") | objective.views_of("teacher"):
            raise UsageError(f"{name}.view: {objective.name} compares both views by itself: leave it weak")
        self._check_detector(networks)
        if len(term.teachers) > 1 and not all(map(are_logits, reads)):
            raise UsageError(f"{name}: only logits can be averaged over teachers, not {', '.join(sorted(reads))}")
        of_classifier = sorted(what for what in reads if are_logits(what) or what in ("head_weight", "head_bias"))
        for teacher in self.teachers:
            if teacher not in networks:
                others = ", ".join(networks.keys() - {"student"}) or "none"
                raise UsageError(f"{name}.teacher: no teacher {teacher!r}; there is {others}")
            if of_classifier and not networks[teacher].num_classes:
                raise UsageError(
                    f"{name}: {objective.name} reads {', '.join(of_classifier)} of {teacher}, which gives features "
                    "alone: use an objective on features, such as feature_distance"
                )
            if knows_some:  # which are known by name
                continue
            outputs, classes = networks[teacher].num_classes, networks["student"].num_classes
            both_heads = "head_weight" in reads & objective.reads_of("student")
            if (any(map(are_logits, reads)) or both_heads) and outputs != classes:
                raise UsageError(f"{name}: {teacher} has {outputs} outputs, the student {classes}")

    def _check_detector(self, networks: Mapping[str, Network]) -> None:
        """That the objective can learn from what a detector gives, where the student is one."""
        if not networks["student"].logits_for:
            return
        name, asked = f"terms.{self.name}: {self.objective.name}", self.objective.logits
        others = "docs/objectives.md lists those for detectors"
        if any(map(are_logits, self.objective.reads_of("student") | self.objective.reads_of("teacher"))):
            wanted = ("softmax", "any") if asked == "any" else (asked,)
            for who in ("student", *self.teachers):
                if (kind := networks[who].logits_for) not in wanted:
                    raise UsageError(
                        f"{name} takes logits for {wanted[0]} ones, and those of {who} are {kind}; {others}"
                    )
        if {"index", "all_labels"} & {*self.objective.parameters}:
            raise UsageError(f"{name} remembers samples, and a detector looks at regions of them; {others}")
