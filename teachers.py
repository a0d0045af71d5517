"""Teachers: their settings, and what they give for a batch. B samples, K classes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from math import log
from typing import Literal, Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from dataset.feed.batch import Batch
from models.outputs import Normalization, Outputs, Scene, in_float32
from models.zoo import Network, NetworkConfig, build_network
from stored.layouts import LayoutConfig
from utils.errors import UsageError, naming
from utils.settings import setting
from utils.text import counted, first_few, in_utf8, spelled


@dataclass(frozen=True)
class TeacherConfig(NetworkConfig):
    """A frozen network by name."""

    batch_statistics: bool = False
    """normalise by the statistics of each batch, as the code of WSLD's authors does"""
    expect: float | None = setting(None, least=0, most=100, affects_result=False)
    """least score (top-1, mAP, AP), percent, on some validation images before the first step; three times chance when
    not given, 0 lets any teacher teach"""
    store: str = setting("", affects_result=False)
    """folder of its stored outputs: what is there is read, what is not is computed and kept; none keeps nothing"""
    layout: LayoutConfig = LayoutConfig()
    """how they are kept"""
    mixed: Literal["own", "linear"] = "own"
    """stored outputs for images of mixup and cutmix: of the mixed image itself (own), or those of the two images, their
    probabilities mixed in the same shares (linear); the latter are stored without mixing, before training"""
    on_damage: Literal["stop", "recompute"] = setting("stop", affects_result=False)
    """a damaged block of the store: stop, or compute it again"""
    classes: tuple[str, ...] = ()
    """names of its outputs, in their order; those that its weights are noted with, else those of the data, when not
    given. It may know them in another order than the data, or only some of them"""


def teacher_of(config: NetworkConfig) -> TeacherConfig:
    """The settings of a teacher, of those of a network; what is neither as it is, to be refused by its type."""
    if type(config) is not NetworkConfig:
        return cast(TeacherConfig, config)
    return TeacherConfig(**{field.name: getattr(config, field.name) for field in fields(config)})


class Teacher(Protocol):
    """Whatever gives outputs for a student to learn from.

    Attributes:
        places: where the classes that it knows stand among the student's, int64 [K], ascending, and so in its outputs;
            None where they are the student's.
    """

    places: Tensor | None

    @property
    def is_shared(self) -> bool:
        """Whether students of one stream share what it gives for a view.

        Not where it looks at what a student gives, or where it is an ensemble of a student's own, whose parts are.
        """

    def __call__(self, views: Views, view: str, student: Outputs) -> Outputs:
        """What it gives for a view of a batch.

        Args:
            views: of the batch.
            view: weak or strong.
            student: what the student gives for it.
        """


class WithNetwork(Teacher, Protocol):
    """A teacher that is a module with one network, or what stands in for it."""

    network: Network


class Views:
    """The views of a batch: each normalised once for networks that share a normalisation, once through each teacher.

    Args:
        batch: with the images of every view.
        shared: those of the batch that several students share; a student's own when not given.
    """

    def __init__(self, batch: Batch, shared: Views | None = None) -> None:
        self.batch, self._shared = batch, shared
        self._normalised: dict[tuple[str, Normalization], Tensor] = {} if shared is None else shared._normalised
        self._given: dict[tuple[str, int], Outputs] = {}

    def through(self, network: Network, view: str, student: Outputs | None = None) -> Outputs:
        """What ``network`` gives for the images of ``view``; a teacher is shown what the ``student`` gives for them."""
        key = view, network.normalization
        scene = scene_of(self.batch, student) if network.takes_scene else None
        if key not in self._normalised:
            self._normalised[key] = network.normalize(self.batch.images[view], scene)
        return network(self._normalised[key], scene)

    def outputs_of(self, teacher: Teacher, view: str, student: Outputs) -> Outputs:
        """What ``teacher`` gives for ``view``, however many ask for it."""
        key = view, id(teacher)
        if key not in self._given:
            shared = self._shared if teacher.is_shared else None
            self._given[key] = (
                teacher(self, view, student) if shared is None else shared.outputs_of(teacher, view, student)
            )
        return self._given[key]

    def all_outputs_of(self, teacher: Teacher) -> list[Outputs]:
        """What ``teacher`` gave, for each view that was asked for."""
        return [outputs for (_, asked), outputs in self._given.items() if asked == id(teacher)]


def scene_of(batch: Batch, student: Outputs | None = None) -> Scene:
    """What is known of a batch beside its pixels, and what the student gives for it, where a teacher looks at it."""
    return Scene(batch.sizes, batch.targets, batch.index, batch.epoch, student)


class Live(nn.Module):
    """A frozen network that sees every batch: without gradients, and in eval mode.

    Args:
        network: what is frozen.
        batch_statistics: whether its batch norms go by the statistics of each batch while students are trained.
        order: in which its outputs are given; as they are when not given.
        places: where those then stand among the student's classes, where it knows some of them alone.
    """

    places: Tensor | None
    _order: Tensor | None

    def __init__(
        self,
        network: Network,
        *,
        batch_statistics: bool = False,
        order: Sequence[int] | None = None,
        places: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.network = network.requires_grad_(False)
        for name, numbers in (("_order", order), ("places", places)):
            self.register_buffer(name, None if numbers is None else torch.tensor(numbers), persistent=False)
        self._norms = [one for one in network.modules() if isinstance(one, _BatchNorm)] if batch_statistics else []
        for norm in self._norms:
            norm.momentum = 0.0  # its own statistics stay as they are
        self.eval()

    def forward(self, views: Views, view: str, student: Outputs) -> Outputs:
        """What the network gives for a view: logits [B, K], and the features that are read."""
        with torch.no_grad():  # not inference_mode: objectives save a teacher's tensors for the backward pass
            return self._ordered(views.through(self.network, view, student))

    @property
    def is_shared(self) -> bool:
        """As `Teacher` has it."""
        return not self.network.takes_scene

    def predict(self, images: Tensor, scene: Scene | None = None) -> Outputs:
        """What it gives for uint8 images [B, 3, H, W]."""
        return self._ordered(self.network.predict(images, scene))

    def _ordered(self, outputs: Outputs) -> Outputs:
        """What the network gave, in the order of the student's classes."""
        return outputs if self._order is None else outputs.of_classes(self._order)

    def train(self, mode: bool = True) -> Live:
        """Switch batch norms that go by the statistics of each batch; all else stays in eval mode."""
        super().train(False)
        for norm in self._norms:
            norm.train(mode)
        return self


def build_teacher(
    config: NetworkConfig,
    classes: Sequence[str],
    reads: Iterable[str] = (),
    side: int = 224,
    key: str = "teacher",
    *,
    knows_all: bool = True,
) -> Live:
    """The teacher of ``config``, giving what ``reads`` names, of a student of these ``classes``.

    Raises:
        UsageError: as `build_network`; or it knows other classes, which are named, or lacks some and must not with
            ``knows_all``; ``key`` is how messages call it.
        DataError: a file of weights is damaged.
    """
    own = config.classes if isinstance(config, TeacherConfig) else ()
    names = own or tuple(classes)
    with naming(key):
        network = build_network(config, len(names), reads, side, classes=names, as_noted=not own)
    if own and not network.num_classes:
        raise UsageError(f"{key}.classes: it gives features alone, which are of no class: leave it out")
    if own and network.logits_for:
        raise UsageError(f"{key}.classes: a detector's outputs are found by the names in its weights: leave it out")
    if own and network.classes and network.classes != own:
        noted = first_few([*map(spelled, network.classes)])
        raise UsageError(f"{key}.classes: its weights know {noted}, in this order: {config.weights}")
    statistics = isinstance(config, TeacherConfig) and config.batch_statistics
    places = places_of(own or (network.classes if config.num_classes is None else ()), classes, key)
    if places is None:
        return Live(network, batch_statistics=statistics)
    order = sorted(range(len(places)), key=places.__getitem__)
    if len(places) == len(classes):
        return Live(network, batch_statistics=statistics, order=order)
    if knows_all:
        lacking = [spelled(name) for place, name in enumerate(classes) if place not in places]
        raise UsageError(f"{key} does not know {counted(len(lacking), 'class')} of the data: {first_few(lacking)}")
    return Live(network, batch_statistics=statistics, order=order, places=sorted(places))


class Ensemble:
    """Several teachers as one, which gives the average of their probabilities: logits [B, K], in float32 at least.

    Args:
        teachers: of the same classes.
        competing: whether these compete, or each is by itself.
    """

    is_shared = False

    def __init__(self, teachers: Sequence[Teacher], *, competing: bool = True) -> None:
        self.teachers, self.places, self._competing = tuple(teachers), teachers[0].places, competing

    def __call__(self, views: Views, view: str, student: Outputs) -> Outputs:
        """What they give for a view."""
        given = [views.outputs_of(one, view, student).logits for one in self.teachers]
        with torch.no_grad(), torch.autocast(given[0].device.type, enabled=False):
            return Outputs(averaged([in_float32(logits) for logits in given], competing=self._competing))


def averaged(logits: Sequence[Tensor], *, competing: bool = True) -> Tensor:
    """Logits of the averaged probabilities, of classes that are ``competing`` (softmax) or each by itself (sigmoid);
    each [B, K] -> [B, K]."""
    stacked = torch.stack([*logits])
    if competing:
        return stacked.log_softmax(-1).logsumexp(0) - log(len(stacked))
    return F.logsigmoid(stacked).logsumexp(0) - F.logsigmoid(-stacked).logsumexp(0)


class Merged:
    """Teachers of some of the classes each as one of all, which gives their logits side by side, [B, K].

    As in the code of CPSD (Xu et al., IJCAI 2022), whose teachers know a part of the labels each.

    Args:
        teachers: each with `places`.
        classes: names of the student's.

    Raises:
        UsageError: two know the same class, or none knows one; in words for a term.
    """

    places: Tensor | None = None
    is_shared = False

    def __init__(self, teachers: Sequence[Teacher], classes: Sequence[str]) -> None:
        self.teachers = tuple(teachers)
        together = torch.cat([places for places in (one.places for one in teachers) if places is not None])
        for place, name in enumerate(classes):
            if (times := int((together == place).sum())) != 1:
                what = "several of the teachers know" if times else "none of the teachers knows"
                raise UsageError(f"{what} the class {spelled(name)}: each must stand in one part, or set several terms")
        self._order = together.argsort()

    def __call__(self, views: Views, view: str, student: Outputs) -> Outputs:
        """What they give for a view."""
        given = [in_float32(views.outputs_of(one, view, student).logits) for one in self.teachers]
        logits = torch.cat(given, 1)
        self._order = self._order.to(logits.device)
        return Outputs(logits.index_select(1, self._order))


def together(
    teachers: Sequence[Teacher], classes: Sequence[str], key: str, *, competing: bool = True
) -> Teacher | None:
    """Several as one: averaged, where they know the same classes, else merged; None of none.

    Args:
        teachers: of a term.
        classes: names of the student's.
        key: of the term, for messages.
        competing: whether the classes do.

    Raises:
        UsageError: they cannot be merged.
    """
    if len(teachers) < 2:
        return next(iter(teachers), None)
    known = [None if one.places is None else one.places.tolist() for one in teachers]
    if all(places == known[0] for places in known):
        return Ensemble(teachers, competing=competing)
    if None in known:
        raise UsageError(f"{key}.teacher: teachers of all classes and of some cannot be averaged: set two terms")
    try:
        return Merged(teachers, classes)
    except UsageError as error:
        raise UsageError(f"{key}.teacher: {error}") from None


def places_of(known: Sequence[str], classes: Sequence[str], key: str) -> list[int] | None:
    """Where each of the classes that a teacher knows stands among the student's; None where they are the same.

    Args:
        known: their names; none where they are taken to be the student's.
        classes: names of the student's; one that is its number, as where nothing names it, is whatever stands there.
        key: of the teacher, for messages.

    Raises:
        UsageError: one of them is none of the student's, or is there twice.
    """
    ours, theirs = [*map(in_utf8, classes)], [*map(in_utf8, known)]
    same = all(
        their in (our, str(number)) or our == str(number) for number, (our, their) in enumerate(zip(ours, theirs))
    )
    if not theirs or (same and len(ours) == len(theirs)):
        return None
    place = {name: number for number, name in enumerate(ours)}
    if unknown := [name for name in theirs if name not in place]:
        as_they_are = f". {key}.num_classes={len(theirs)} takes its outputs as those of the data, in order"
        raise UsageError(
            f"{key} knows {counted(len(unknown), 'class')} that the data lacks: {first_few([*map(spelled, unknown)])}; "
            f"the data has {first_few([*map(spelled, ours)])}{as_they_are if len(theirs) >= len(ours) else ''}"
        )
    if len({*theirs}) < len(theirs):
        raise UsageError(
            f"{key}: {spelled(next(name for name in theirs if theirs.count(name) > 1))} stands there twice"
        )
    return [place[name] for name in theirs]
