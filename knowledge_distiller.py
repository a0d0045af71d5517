"""The facade: a student, frozen teachers, and the weighted terms of the loss."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from models.outputs import Normalization, Outputs
from models.zoo import Network, fitting_input
from terms import LOGITS, Example, Match, Term
from utils.errors import UsageError

__all__ = ["KnowledgeDistiller", "Term"]


class KnowledgeDistiller(nn.Module):
    """Runs the networks and adds up the terms; everything trainable is inside, so one DDP around it is enough.

    Args:
        student: what is trained.
        teachers: frozen networks, by the name that terms refer to.
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
        teachers: Mapping[str, Network],
        terms: Mapping[str, Term],
        example: Tensor,
        all_labels: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.student = student
        self.teachers = nn.ModuleDict(teachers)
        self.teachers.requires_grad_(False)
        looked = _look({"student": student, **teachers}, example, all_labels)
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
        return any(LOGITS & match.objective.reads_of("student") for match in self._active.values())

    @property
    def is_taught(self) -> bool:
        """Whether a term looks at a teacher."""
        return any(match.teachers for match in self._active.values())

    def train(self, mode: bool = True) -> KnowledgeDistiller:
        """Switch to training or evaluation; what is not trained stays in eval mode."""
        super().train(mode)
        for part in self.children():
            for module in part.modules():
                parameters = list(module.parameters())
                if parameters and not any(parameter.requires_grad for parameter in parameters):
                    module.eval()
        for teacher in self.teachers.values():
            assert isinstance(teacher, Network)
            if teacher.batch_statistics:
                for norm in teacher.norms():
                    norm.train(mode)
        return self

    def set_epoch(self, epoch: float) -> None:
        """Move the ramps, and objectives that change with time, to ``epoch``, counted from 1."""
        self._weights.copy_(torch.tensor([term.factor(epoch) for term in self.terms.values()]))
        for match in self._active.values():
            match.set_epoch(epoch)

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The loss of a batch.

        Args:
            batch: "images" uint8 [B, 3, H, W], "labels" int64 [B], "index" int64 [B]; "strong_images" like the images
                where a term needs them.

        Returns:
            "loss", the weighted sum; "taught", the part of it that looks at a teacher; each term under its own name,
            unweighted scalars; "logits" [B, K], the student's; "teachers.NAME", whether that one's logits are finite.
        """
        matches = list(self._active.values())
        outputs = self._run(batch["images"], matches)
        if looking := [match for match in matches if match.needs_strong_views]:
            for name, strong in self._run(batch["strong_images"], looking).items():
                outputs[name].context["strong_logits"] = strong.logits
        with torch.autocast(batch["images"].device.type, enabled=False):  # objectives compute in float32 or better
            values = [match(outputs, batch) for match in matches]
            weighted = torch.stack(values) * self._weights
        parts = {"loss": weighted.sum(), "taught": (weighted * self._taught).sum()}
        parts |= {f"teachers.{name}": one.logits.isfinite().all() for name, one in outputs.items() if name != "student"}
        return {**parts, **dict(zip(self.terms, values)), "logits": outputs["student"].logits}

    def _run(self, images: Tensor, matches: Sequence[Match]) -> dict[str, Outputs]:
        """What the student and the teachers of ``matches`` give for uint8 images [B, 3, H, W], by name."""
        normalised: dict[Normalization, Tensor] = {}
        outputs = {"student": _run(self.student, images, normalised)}
        with torch.no_grad():  # not inference_mode: objectives save teacher tensors for the backward pass
            for name, teacher in self.teachers.items():
                if any(name in match.teachers for match in matches):
                    outputs[name] = _run(teacher, images, normalised)
        return outputs

    def _match(self, name: str) -> Match:
        match = self.matches[name]
        assert isinstance(match, Match)
        return match

    def _named(self) -> dict[str, nn.Parameter]:
        """All that can be trained, by the names that pages use."""
        named = {f"student.{name}": parameter for name, parameter in self.student.classifier.named_parameters()}
        for name, match in self.matches.items():
            for path, parameter in match.named_parameters():
                named[f"terms.{name}.{path.removeprefix('function.')}"] = parameter
        return {name: parameter for name, parameter in named.items() if parameter.requires_grad}


def _is_below(name: str, start: str) -> bool:
    return name == start or name.startswith(f"{start}.")


def _run(network: nn.Module, images: Tensor, normalised: dict[Normalization, Tensor]) -> Outputs:
    """uint8 images [B, 3, H, W], normalised once for all networks that share a normalisation."""
    assert isinstance(network, Network)
    if network.normalization not in normalised:
        normalised[network.normalization] = network.normalize(images)
    return network(normalised[network.normalization])


@torch.no_grad()
def _look(networks: dict[str, Network], images: Tensor, all_labels: Tensor | None) -> Example:
    """What each network gives for an example, in eval mode: no statistics of a network may change."""
    modes = {name: network.training for name, network in networks.items()}
    normalised = {name: network.eval().normalize(images) for name, network in networks.items()}
    outputs: dict[str, Outputs] = {}
    for name, network in networks.items():
        with fitting_input(name, network.classifier, images.shape[-1]):
            outputs[name] = network(normalised[name])
    for name, network in networks.items():
        outputs[name].context["strong_logits"] = outputs[name].logits
        network.train(modes[name])
    return Example(networks, normalised, outputs, all_labels)
