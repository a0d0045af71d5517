"""The form that networks with branches, such as RepVGG, take once they are trained: the same outputs, one branch.

Ding et al., RepVGG: Making VGG-style ConvNets Great Again, CVPR 2021, arXiv 2101.03697. timm's modules make it
themselves; those that only fold a batch norm into the layer before keep it.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy

import torch
from torch import Tensor, nn

_METHODS = ("reparameterize", "switch_to_deploy")


def has_branches(network: nn.Module) -> bool:
    """Whether ``network`` has another form for evaluation."""
    return any(hasattr(module, method) for module in network.modules() for method in _METHODS)


@torch.no_grad()
def deploy(network: nn.Module) -> None:
    """Bring ``network`` into the form for evaluation, in place; one that is in it stays as it is."""
    for child in network.children():
        method = next((method for method in _METHODS if hasattr(child, method)), None)
        if method is not None:
            getattr(child, method)()
        deploy(child)


@torch.no_grad()
def deployed(network: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict in the form for evaluation of ``network`` with the weights ``state``; both stay as they are."""
    twin = deepcopy(network)
    for path, module in list(twin.named_modules()):
        if isinstance(module, nn.SyncBatchNorm):  # which timm's modules do not know as a batch norm
            twin.set_submodule(path, nn.BatchNorm2d(module.num_features, module.eps))
    twin.load_state_dict(state)
    first = next(value for value in state.values() if value.is_floating_point())
    deploy(twin.to(first.device, torch.double))
    return twin.to(first.dtype).state_dict()


def is_deployed(network: nn.Module, state: Mapping[str, Tensor]) -> bool:
    """Whether ``state``, whatever stands before its names, is of ``network`` in its form for evaluation."""
    if not state or not has_branches(network):
        return False
    twin = deepcopy(network)
    deploy(twin)
    before, after = network.state_dict().keys(), twin.state_dict().keys()
    names = [f".{name}" for name in state]

    def is_there(one: str) -> bool:
        return any(name.endswith(f".{one}") for name in names)

    return all(map(is_there, after - before)) and not any(map(is_there, before - after))
