"""The rest of a network: what its later layers make of a map that takes the place of one of its own.

Networks are whole, so an image passes through the layers before the map too: a single one, whatever the map's batch,
in eval mode, and what they give is dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from models.outputs import Body, Outputs
from utils.errors import UsageError

Rest = Callable[[str, Tensor], Outputs]


def rest_of(network: nn.Module, images: Tensor) -> Rest:
    """A function from the name of a stage and a map [B, C, H, W], in the place of its own, to what ``network`` gives.

    Features before the stage are those of one image. The layers behind it are in the mode that they have, at the
    precision of this pass; batch norms in training go by the map's statistics and keep their own as they are.

    Args:
        network: normalised images -> `Outputs`.
        images: [B, 3, H, W].

    Raises:
        ValueError: of the function, where the network cannot go on from that stage.
    """
    image, device = images[:1], images.device.type
    precision = torch.get_autocast_dtype(device), torch.is_autocast_enabled(device)

    def rest(name: str, given: Tensor) -> Outputs:
        with torch.autocast(device, *precision):
            return _passed(network, image, name, given)

    return rest


@torch.no_grad()
def can_go_on(network: nn.Module, images: Tensor, name: str, given: Tensor) -> bool:
    """Whether what follows the stage ``name`` reads its map, such as ``given`` [B, C, H, W], B > 1, and nothing else.

    Args:
        network: as `rest_of` has it.
        images: [B, 3, H, W].
        name: of the stage.
        given: an example of its map.
    """
    training = [module for module in network.modules() if module.training]
    others = torch.linspace(-1, 1, images.numel(), dtype=images.dtype, device=images.device).view_as(images)
    network.eval()
    try:
        made = [rest_of(network, seen)(name, given) for seen in (images, others)]
    except (RuntimeError, ValueError, UsageError):  # a map of another batch has no place there, or the name has none
        return False
    finally:
        _switch(training, training=True)
    behind = [[x for x in (one.logits, *one.features.values()) if len(x) == len(given)] for one in made]
    return len(made[0].logits) == len(given) and all(map(torch.equal, *behind))


class _Start:
    """Where a pass begins, and with what; what is trained is switched to training there."""

    def __init__(self, name: str, given: Tensor, trained: list[nn.Module]) -> None:
        self.name, self.given, self.trained, self.is_reached = name, given, trained, False

    def __call__(self, name: str, x: Tensor) -> Tensor:
        """x, or the given map where ``name`` is its name."""
        if name != self.name:
            return x
        self.is_reached = True
        _switch(self.trained, training=True)
        return self.given.clone()  # an activation in place may follow


def _passed(network: nn.Module, image: Tensor, name: str, given: Tensor) -> Outputs:
    training = [module for module in network.modules() if module.training]
    norms = [module for module in training if isinstance(module, _BatchNorm) and module.track_running_stats]
    bodies = [module for module in network.modules() if isinstance(module, Body)]
    start = _Start(name, given, training)
    try:
        _switch(training, training=False)
        _switch(norms, track_running_stats=False)
        _switch(bodies, start=start)
        outputs: Outputs = network(image)
    finally:
        _switch(bodies, start=None)
        _switch(norms, track_running_stats=True)
        _switch(training, training=True)
    if not start.is_reached:
        raise ValueError(f"{type(network).__name__} cannot go on from {name}")
    return outputs


def _switch(modules: Iterable[nn.Module], **values: object) -> None:
    for module in modules:
        for name, value in values.items():
            setattr(module, name, value)
