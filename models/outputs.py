"""What every network returns, and the one adapter that taps networks of others with hooks.

B samples, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Literal, NamedTuple

from torch import Tensor, nn


@dataclass
class Outputs:
    """The result of a forward pass.

    Attributes:
        logits: [B, K].
        features: by canonical name: `stage1`..`stage4` [B, C, H, W], shallow to deep, after the last ReLU of the
            stage; `stageN_pre` before it (the same where a stage ends without one); `last` [B, C, H, W], the map that
            is pooled; `pooled` [B, C], what the classifier sees.
        context: whatever else a network tells, by name: `head_weight` [K, D] and `head_bias` [K], of its last layer.
    """

    logits: Tensor
    features: dict[str, Tensor] = field(default_factory=dict)
    context: dict[str, Tensor] = field(default_factory=dict)

    def read(self, name: str) -> Tensor:
        """The tensor called ``name``: `logits`, a feature, or a piece of context."""
        if name == "logits":
            return self.logits
        return self.features[name] if name in self.features else self.context[name]


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
    """

    features: tuple[str, ...]


class Tapped(Body):
    """A network of another library that returns `Outputs`.

    Hooks stand only on the taps asked for and hold tensors only during the pass. A ReLU whose input is tapped is
    switched to out-of-place, or the hook would see the rectified tensor.

    Args:
        network: images [B, 3, H, W] -> logits [B, K].
        taps: feature name -> where to read it.

    Raises:
        ValueError: a tap names a module that the network lacks.
    """

    def __init__(self, network: nn.Module, taps: Mapping[str, Tap]) -> None:
        super().__init__()
        self.network = network
        self.features = tuple(taps)
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
                module.register_forward_hook(partial(self._catch_output, name, tap.copy))

    def forward(self, images: Tensor) -> Outputs:
        """images: [B, 3, H, W]."""
        self._caught.clear()
        logits = self.network(images)
        features = {name: _as_map(value, self._forms[name]) for name, value in self._caught.items()}
        if "pooled" in features:
            features["pooled"] = features["pooled"].flatten(1)
        self._caught.clear()
        return Outputs(logits, features)

    # Bound methods, not closures: a deep copy of the network (an EMA) then catches into its own dict.
    def _catch_input(self, name: str, _module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self._caught[name] = inputs[0]

    def _catch_output(
        self, name: str, copy: bool, _module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor
    ) -> None:
        self._caught[name] = output.clone() if copy else output


def _as_map(value: Tensor, form: Form) -> Tensor:
    """[B, C, H, W] of any form."""
    if form == "channels_last":
        return value.permute(0, 3, 1, 2)
    if form == "tokens":  # of a square; class tokens stand before them
        side = int(value.shape[1] ** 0.5)
        return value[:, -side * side :].transpose(1, 2).unflatten(2, (side, side))
    return value
