"""Teachers: their settings, and what they give for a batch. B samples, K classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from math import log
from typing import Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from dataset.feed.batch import Batch
from models.outputs import Normalization, Outputs, in_float32
from models.zoo import Network, NetworkConfig
from utils.settings import setting


@dataclass(frozen=True)
class TeacherConfig(NetworkConfig):
    """A frozen network by name."""

    batch_statistics: bool = False
    """normalise by the statistics of each batch, as the code of WSLD's authors does"""
    expect: float | None = setting(None, least=0, most=100, affects_result=False)
    """least score (top-1, mAP), percent, on some validation images before the first step; three times chance when not
    given, 0 lets any teacher teach"""


def teacher_of(config: NetworkConfig) -> TeacherConfig:
    """The settings of a teacher, of those of a network; what is neither as it is, to be refused by its type."""
    if type(config) is not NetworkConfig:
        return cast(TeacherConfig, config)
    return TeacherConfig(**{field.name: getattr(config, field.name) for field in fields(config)})


class Teacher(Protocol):
    """Whatever gives outputs for a student to learn from."""

    def __call__(self, views: Views, view: str, student: Outputs) -> Outputs:
        """What it gives for a view of a batch.

        Args:
            views: of the batch.
            view: weak or strong.
            student: what the student gives for it.
        """


class Views:
    """The views of a batch: each normalised once for networks that share a normalisation, once through each teacher.

    Args:
        batch: with the images of every view.
    """

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        self._normalised: dict[tuple[str, Normalization], Tensor] = {}
        self._given: dict[tuple[str, int], Outputs] = {}

    def through(self, network: Network, view: str) -> Outputs:
        """What ``network`` gives for the images of ``view``."""
        key = view, network.normalization
        if key not in self._normalised:
            self._normalised[key] = network.normalize(self.batch.images[view])
        return network(self._normalised[key])

    def outputs_of(self, teacher: Teacher, view: str, student: Outputs) -> Outputs:
        """What ``teacher`` gives for ``view``, however many ask for it."""
        key = view, id(teacher)
        if key not in self._given:
            self._given[key] = teacher(self, view, student)
        return self._given[key]

    def all_outputs_of(self, teacher: Teacher) -> list[Outputs]:
        """What ``teacher`` gave, for each view that was asked for."""
        return [outputs for (_, asked), outputs in self._given.items() if asked == id(teacher)]


class Live(nn.Module):
    """A frozen network that sees every batch: without gradients, and in eval mode.

    Args:
        network: what is frozen.
        batch_statistics: whether its batch norms go by the statistics of each batch while students are trained.
    """

    def __init__(self, network: Network, *, batch_statistics: bool = False) -> None:
        super().__init__()
        self.network = network.requires_grad_(False)
        self._norms = [one for one in network.modules() if isinstance(one, _BatchNorm)] if batch_statistics else []
        for norm in self._norms:
            norm.momentum = 0.0  # its own statistics stay as they are
        self.eval()

    def forward(self, views: Views, view: str, _student: Outputs) -> Outputs:
        """What the network gives for a view: logits [B, K], and the features that are read."""
        with torch.no_grad():  # not inference_mode: objectives save a teacher's tensors for the backward pass
            return views.through(self.network, view)

    def train(self, mode: bool = True) -> Live:
        """Switch batch norms that go by the statistics of each batch; all else stays in eval mode."""
        super().train(False)
        for norm in self._norms:
            norm.train(mode)
        return self


class Ensemble:
    """Several teachers as one, which gives the average of their probabilities: logits [B, K], in float32 at least."""

    def __init__(self, teachers: Sequence[Teacher]) -> None:
        self.teachers = tuple(teachers)

    def __call__(self, views: Views, view: str, student: Outputs) -> Outputs:
        """What they give for a view."""
        given = [views.outputs_of(one, view, student).logits for one in self.teachers]
        with torch.no_grad(), torch.autocast(given[0].device.type, enabled=False):
            return Outputs(averaged([in_float32(logits) for logits in given]))


def averaged(logits: Sequence[Tensor]) -> Tensor:
    """Logits of the averaged probabilities; each [B, K] -> [B, K]."""
    return torch.stack([z.log_softmax(1) for z in logits]).logsumexp(0) - log(len(logits))


def single_or_ensemble(teachers: Sequence[Teacher]) -> Teacher | None:
    """An ensemble of several; a single one as it is, and none of none."""
    return Ensemble(teachers) if len(teachers) > 1 else next(iter(teachers), None)
