"""What every network returns, and the adapters: one that taps a network with hooks, one that puts layers behind it.

B samples, K classes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from utils.errors import UsageError

FOUND = ("boxes", "scores", "classes")  # the context of what a detector finds
_BY_CLASS = {"label_embeddings": 1, "token": 1, "head_weight": 0, "head_bias": 0}  # and the dimension of the classes


@dataclass
class Outputs:
    """The result of a forward pass.

    B samples, K classes; of a detector R regions of a batch, A anchors of an image, D detections of one, L locations.

    Attributes:
        logits: [B, K]. Of a detector [R, K + 1] of regions, background first, or [B, A, K + 1] of anchors (FCOS:
            locations), the first of which is never a class; empty, [0], where maps alone are read.
        features: by canonical name: `stage1`..`stage4` [B, C, H, W], shallow to deep, after the last ReLU of the
            stage; `stageN_pre` before it (the same where a stage ends without one); `last` [B, C, H, W], the map that
            is pooled; `pooled` [B, C], what the classifier is given, before any dropout; `label_embeddings` [B, K, D],
            one for each class, of heads that have them, whose `pooled` is the average of `last`; `token` [B, K], what a
            second classifier gives, of those that have one, whose `pooled` is that of the first. Of a detector the
            stages and `fpn0`..`fpn7` [B, C, H, W], the maps that its heads look at, by log2 of their stride; with
            regions `pooled` [R, C], what their classifier is given; else by level `tower3`.. [B, C, H, W], the last map
            of the classification tower, and `cross_tower3`.., `cross_box_tower3`.., those after the third of four
            convolutions of both towers, of FCOS the second.
        context: whatever else a network gives, by name: `head_weight` [K, D] and `head_bias` [K], of its classifier (of
            a detector [K + 1, D], or [A of a location * (K + 1), D]). Of a detector with regions: `regions` [R, 5], the
            number of the image and x1, y1, x2, y2 in pixels of the canvas; `box_deltas` [R, K + 1, 4], encoded; where
            they are learned from, `labels` int64 [R], 0 for background, and `box_targets` [R, 4], encoded. Of one
            without: `usable` bool [B, L], where an anchor is positive or background; and where they are read
            `dense_boxes` [B, A, 4], in pixels; `positives`, anchors of a rank that learn from an object, on the average
            over ranks; from a teacher `cross_logits` [B, A, K + 1] and `cross_boxes` [B, A, 4], in pixels, what follows
            these convolutions on the student's `cross_tower` and `cross_box_tower`. Of all in training `losses`
            [5]: of classes, boxes, centerness, objectness and proposals. After `predict`: `boxes` [B, D, 4] in pixels
            of the canvas, `scores` [B, D] and `classes` int64 [B, D], -1 where there is none; likewise of a teacher of
            which they are read.
        losses_on: of a detector in training: its `losses` [5] on other targets than those of the batch, given as the
            task lays them out, `boxes` [B, M, 4], `classes` and `learned` [B, M].
        rest: of a classifier, where it is read: what its layers behind a stage make of a map in the place of their own,
            given the name of the stage and the map [B, C, H, W] (`models/rest.py`).
    """

    logits: Tensor
    features: dict[str, Tensor] = field(default_factory=dict)
    context: dict[str, Tensor] = field(default_factory=dict)
    losses_on: Callable[[Mapping[str, Tensor]], Tensor] | None = None
    rest: Callable[[str, Tensor], Outputs] | None = None

    def read(self, name: str) -> Tensor:
        """The tensor called ``name``: `logits`, a feature, or a piece of context."""
        if name == "logits":
            return self.logits
        return self.features[name] if name in self.features else self.context[name]

    def of_classes(self, places: Tensor) -> Outputs:
        """What is by class, for the classes at ``places`` alone, int64 [P], in that order; all else as it is."""

        def chosen(name: str, tensor: Tensor) -> Tensor:
            if name not in _BY_CLASS:
                return tensor
            if tensor.shape[_BY_CLASS[name]] != self.logits.shape[1]:
                of_groups = ": of the head label_embeddings set head.options.groups=0"
                raise UsageError(f"{name} is not one a class{of_groups if name == 'label_embeddings' else ''}")
            return tensor.index_select(_BY_CLASS[name], places)

        features = {name: chosen(name, tensor) for name, tensor in self.features.items()}
        context = {name: chosen(name, tensor) for name, tensor in self.context.items()}
        rest = None if self.rest is None else partial(_rest_of_classes, self.rest, places)
        return Outputs(self.logits.index_select(1, places), features, context, rest=rest)

    def is_finite(self) -> Tensor:
        """Whether all of it is; bool scalar."""
        tensors = self.logits, *self.features.values(), *self.context.values()
        return torch.stack([_is_finite(tensor) for tensor in tensors]).all()

    def detached(self) -> Outputs:
        """Logits and context, through which nothing is learned; without features, which would hold on to memory."""
        return Outputs(self.logits.detach(), {}, {name: tensor.detach() for name, tensor in self.context.items()})


@dataclass(frozen=True, eq=False)
class Scene:
    """What is known of B images beside their pixels; classifiers ask for none of it.

    Attributes:
        sizes: int64 [B, 2], height and width of each within the pixels that are given; zeros surround it.
        targets: by name, as the task lays them out; empty where they are not known.
        index: int64 [B], number of each sample in its split.
        epoch: from 0.
        student: what the student gives for these images, where it is its teacher that looks at them.
    """

    sizes: Tensor
    targets: Mapping[str, Tensor]
    index: Tensor
    epoch: int = 0
    student: Outputs | None = None


def _is_finite(tensor: Tensor) -> Tensor:
    """Whether all of a tensor is; bool scalar. By its largest magnitude, which takes one read and no copy."""
    if not tensor.is_floating_point() or not tensor.numel():
        return torch.ones((), dtype=torch.bool, device=tensor.device)
    return torch.linalg.vector_norm(tensor, torch.inf).isfinite()


def _rest_of_classes(rest: Callable[[str, Tensor], Outputs], places: Tensor, name: str, given: Tensor) -> Outputs:
    return rest(name, given).of_classes(places)


def in_float32(tensor: Tensor) -> Tensor:
    """Half precision as float32; others as they are."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


class Normalization(NamedTuple):
    """Per-channel statistics of a network's input, for pixels scaled to [0, 1]."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


IMAGENET = Normalization((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


Form = Literal["map", "channels_last", "tokens"]  # [B, C, H, W], [B, H, W, C], [B, any class tokens + H W, C]


class Tap(NamedTuple):
    """Where a feature is read: a module by path, its output or its input, and how that lies in memory.

    A module that a pass calls more than once is read at its last call.
    """

    module: str
    side: Literal["output", "input"] = "output"
    form: Form = "map"
    copy: bool = False  # before the network writes to it


class Body(nn.Module):
    """A network that returns `Outputs`.

    Attributes:
        features: names of those that it gives.
        classified_by: path of the linear layer that gives the logits, where another is as wide; found where empty.
        start: from the name of a map and itself to what takes its place, of a pass that begins there.
    """

    features: tuple[str, ...]
    classified_by = ""
    start: Callable[[str, Tensor], Tensor] | None = None

    def ending(self, name: str, x: Tensor) -> Tensor:
        """The map that all which follows reads: x, a stage's own, or what a pass begins with in its place."""
        return x if self.start is None else self.start(name, x)


class Tapped(Body):
    """A network with hooks that give features of it, beside those that it gives itself.

    Hooks stand only on the taps asked for and hold tensors only during the pass. A ReLU whose input is tapped is
    switched to out-of-place, or the hook would see the rectified tensor.

    Args:
        network: images [B, 3, H, W] -> logits [B, K], or `Outputs`.
        taps: feature name -> where to read it.

    Raises:
        ValueError: a tap names a module that the network lacks.
    """

    def __init__(self, network: nn.Module, taps: Mapping[str, Tap]) -> None:
        super().__init__()
        self.network = network
        self.features = (*dict.fromkeys((*(network.features if isinstance(network, Body) else ()), *taps)),)
        self._forms = {name: tap.form for name, tap in taps.items()}
        self._caught: dict[str, Tensor] = {}
        modules = dict(network.named_modules())
        for name, tap in taps.items():
            module = modules.get(tap.module)
            if module is None:
                raise ValueError(f"tap {name}: {type(network).__name__} has no module {tap.module!r}")
            if tap.side == "input":
                if hasattr(module, "inplace"):
                    module.inplace = False
                module.register_forward_pre_hook(partial(self._catch_input, name))
            else:
                module.register_forward_hook(partial(self._catch_output, name, tap))

    def forward(self, images: Tensor) -> Outputs:
        """images: [B, 3, H, W]."""
        self._caught.clear()
        made = self.network(images)
        outputs = made if isinstance(made, Outputs) else Outputs(made)
        features = {name: _as_map(value, self._forms[name]) for name, value in self._caught.items()}
        if "pooled" in features:
            features["pooled"] = features["pooled"].flatten(1)
        self._caught.clear()
        return Outputs(outputs.logits, {**outputs.features, **features}, outputs.context)

    # Bound methods, not closures: a deep copy of the network (an EMA) then catches into its own dict.
    def _catch_input(self, name: str, _module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self._caught[name] = inputs[0]

    def _catch_output(
        self, name: str, tap: Tap, _module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor
    ) -> Tensor:
        if tap.form == "map":
            output = self.ending(name, output)
        self._caught[name] = output.clone() if tap.copy else output
        return output


class Behind(Body, ABC):
    """A backbone with other layers behind its features than it came with.

    Parameters of the backbone that ``feature`` does not depend on, such as those of its own classifier, are frozen.

    Args:
        body: images -> `Outputs`.
        feature: of those that it gives, the deepest that is read.
        side: of the images, pixels.
        gives: names of the features that the layers behind add, or put in the place of the backbone's.

    Attributes:
        channels: C of the feature.
        shapes: of the backbone's features for one image, by name.
    """

    def __init__(self, body: Body, feature: str, side: int, gives: tuple[str, ...] = ()) -> None:
        super().__init__()
        self.body = body
        self.features = (*dict.fromkeys((*body.features, *gives)),)
        training = body.training
        features = body.eval()(torch.zeros(1, 3, side, side)).features
        body.train(training)
        self.shapes = {name: value.shape for name, value in features.items()}
        given = features[feature]
        self.channels = given.shape[1]
        parameters = [parameter for parameter in body.parameters() if parameter.requires_grad]
        for parameter, gradient in zip(parameters, torch.autograd.grad(given.sum(), parameters, allow_unused=True)):
            parameter.requires_grad_(gradient is not None)

    def forward(self, images: Tensor) -> Outputs:
        """images: [B, 3, H, W] -> logits [B, K]; the backbone's features and those of the layers behind."""
        given = self.body(images)
        made = self.behind(given.features)
        return Outputs(made.logits, {**given.features, **made.features}, made.context)

    @abstractmethod
    def behind(self, features: Mapping[str, Tensor]) -> Outputs:
        """The backbone's features -> logits [B, K], and features of its own."""


def _as_map(value: Tensor, form: Form) -> Tensor:
    """[B, C, H, W] of any form."""
    if form == "channels_last":
        return value.permute(0, 3, 1, 2)
    if form == "tokens":  # of a square; class tokens stand before them
        side = int(value.shape[1] ** 0.5)
        return value[:, -side * side :].transpose(1, 2).unflatten(2, (side, side))
    return value
