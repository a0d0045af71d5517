"""The facade: a student, frozen teachers, and the weighted terms of the loss."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from models.outputs import Normalization, Outputs
from models.zoo import Network
from terms import Example, Match, Term
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
        if not terms:
            raise UsageError("terms: a loss needs at least one")
        self.student = student
        self.teachers = nn.ModuleDict(teachers)
        self.teachers.requires_grad_(False).eval()
        self.terms = dict(terms)
        looked = _look({"student": student, **teachers}, example, all_labels)
        matches = {name: Match(name, term, looked) for name, term in terms.items()}
        self.matches = nn.ModuleDict(matches)
        # A buffer and not numbers, so that a ramp does not recompile the graph.
        self.register_buffer("_weights", torch.empty(len(terms)), persistent=False)
        taught = [float(match.objective.needs_teacher) for match in matches.values()]
        self.register_buffer("_taught", torch.tensor(taught), persistent=False)
        self.set_epoch(1)

    def train(self, mode: bool = True) -> KnowledgeDistiller:
        """Switch the student and the objectives; teachers stay in eval mode."""
        super().train(mode)
        self.teachers.eval()
        return self

    def set_epoch(self, epoch: float) -> None:
        """Move the ramps, and objectives that change with time, to ``epoch``, counted from 1."""
        self._weights.copy_(torch.tensor([term.factor(epoch) for term in self.terms.values()]))
        for match in self.matches.values():
            assert isinstance(match, Match)
            match.set_epoch(epoch)

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The loss of a batch.

        Args:
            batch: "images" uint8 [B, 3, H, W], "labels" int64 [B], "index" int64 [B].

        Returns:
            "loss", the weighted sum; "taught", the part of it that looks at a teacher; each term under its own name,
            unweighted scalars; "logits" [B, K], the student's.
        """
        normalised: dict[Normalization, Tensor] = {}
        outputs = {"student": _run(self.student, batch["images"], normalised)}
        with torch.no_grad():  # not inference_mode: objectives save teacher tensors for the backward pass
            outputs |= {name: _run(net, batch["images"], normalised) for name, net in self.teachers.items()}
        with torch.autocast(batch["images"].device.type, enabled=False):  # objectives compute in float32 or better
            values = [match(outputs, batch) for match in self.matches.values()]
            weighted = torch.stack(values) * self._weights
        parts = {"loss": weighted.sum(), "taught": (weighted * self._taught).sum()}
        return {**parts, **dict(zip(self.terms, values)), "logits": outputs["student"].logits}


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
    outputs = {name: network(normalised[name]) for name, network in networks.items()}
    for name, network in networks.items():
        network.train(modes[name])
    return Example(networks, normalised, outputs, all_labels)
