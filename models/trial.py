"""Networks of one's own, tried before the first step, and what goes wrong in them in one line that names them.

B images, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from models.outputs import Body, Outputs
from models.weights import unsavable
from utils.distributed import is_of_ranks
from utils.errors import ExpectedError, UsageError, in_one_line
from utils.imports import line_in, never_exiting


class Origin(NamedTuple):
    """Where a network of one's own is written.

    Attributes:
        name: its import path.
        folder: that of its module.
        whole: whether all that is trained of it has a part in its logits.
    """

    name: str
    folder: str
    whole: bool = True

    def given(self, network: Callable[[Tensor], Any], images: Tensor, where: str = "") -> Any:
        """What ``network`` makes of ``images`` [B, 3, H, W]; ``where`` they are, in words.

        Raises:
            UsageError: it raises an error, or ends the program.
        """
        try:
            with never_exiting():
                return network(images)
        except (torch.OutOfMemoryError, torch.AcceleratorError, *ExpectedError):
            raise
        except Exception as error:  # a program of the user's
            if is_of_ranks(error):
                raise
            raised = f"{in_one_line(error)}{line_in(error, Path(self.folder))}"
            raise UsageError(f"{self.name} does not take images {list(images.shape)}{where}: {raised}") from error


def try_out(
    origin: Origin, network: nn.Module, side: int, num_classes: int, *, trained: bool, gives_logits: bool = True
) -> Origin:
    """See that a network of one's own can be saved, gives logits, [B, K], and can be trained; it stays as it was.

    One image passes through it and two together, of ``side`` x ``side`` pixels, in eval mode; one that is ``trained``
    is shown two in training mode too, and their gradients are taken, where that can be on a CPU.

    Args:
        origin: of it.
        network: the network itself.
        side: H = W.
        num_classes: K.
        trained: whether it will be.
        gives_logits: whether it has a classifier; without, nothing passes through it.

    Returns:
        ``origin``, with what was seen of it.

    Raises:
        UsageError: it cannot, gives something else, changes the images, or raises an error.
    """
    for name, tensor in (*network.named_parameters(), *network.named_buffers()):
        if tensor.device.type != "cpu":
            raise UsageError(f"{origin.name}: {name} is on {tensor.device}: make it on the CPU, from where it is moved")
    if gives_logits:
        training = network.training
        network.eval()
        with torch.no_grad():
            for size in (1, 2):
                _try(origin, network, _images(size, side), num_classes)
        network.train(training)
        for name, tensor in (*network.named_parameters(), *network.named_buffers()):
            if is_lazy(tensor):
                raise UsageError(f"{origin.name}: {name} has no shape yet: no image reaches its layer")
    if unfit := unsavable({name: value for name, value in network.state_dict().items() if not is_lazy(value)}):
        raise UsageError(f"{origin.name}: its state dict has {unfit}, and what is saved of a network are dense tensors")
    synchronised = any(isinstance(one, nn.SyncBatchNorm) for one in network.modules())  # which train on GPUs alone
    if not gives_logits or not trained or synchronised:
        return origin
    with torch.random.fork_rng(devices=[]), _kept(network), torch.enable_grad():
        _try(origin, network.train(), _images(2, side), num_classes, " in training mode")
        whole = all(one.grad is not None for one in network.parameters() if one.requires_grad)
    return origin._replace(whole=whole)


def _images(size: int, side: int) -> Tensor:
    """Images [size, 3, side, side], no two pixels alike."""
    return torch.linspace(-2, 2, size * 3 * side * side).view(size, 3, side, side)


def _try(origin: Origin, network: nn.Module, images: Tensor, num_classes: int, where: str = "") -> None:
    """Let ``images`` pass through the network, and back where that leaves a gradient."""
    before, size = images.clone(), len(images)
    given = origin.given(network, images, where)
    if not torch.equal(images, before):
        raise UsageError(f"{origin.name} writes to the images that it is given, which others see too: copy them first")
    if isinstance(given, Outputs) and not isinstance(network, Body):
        raise UsageError(f"{origin.name} returns Outputs: derive it from models.outputs.Body, and list its `features`")
    logits = given.logits if isinstance(given, Outputs) else given
    count = "one image" if size == 1 else f"{size} images"
    if not isinstance(logits, Tensor):
        what = f"{type(given).__name__} for images [B, 3, H, W]"
        raise UsageError(f"{origin.name} returns {what}{where}, where logits are expected")
    if logits.shape != (size, num_classes):
        what = f"{list(logits.shape)} for {count}"
        raise UsageError(f"{origin.name} returns {what}{where}, where logits [{size}, {num_classes}] are expected")
    if not logits.is_floating_point():
        what = f"{logits.dtype} for {count}".removeprefix("torch.")
        raise UsageError(f"{origin.name} returns {what}{where}, where logits of a floating-point type are expected")
    if isinstance(network, Body):
        made = given.features if isinstance(given, Outputs) else {}
        listed = getattr(network, "features", None)
        if listed is None:
            raise UsageError(f"{origin.name} is a Body without `features`: list those that it gives, () for none")
        if lacking := {*listed} - {*made}:
            raise UsageError(f"{origin.name} lists {min(lacking)} in its features and gives none of that name{where}")
    if logits.requires_grad:
        origin.given(lambda _: logits.sum().backward(), images, f"{where}, in its backward pass")


@contextmanager
def _kept(network: nn.Module) -> Iterator[None]:
    """Leave the network as it is, whatever passes through it: values, gradients, and what its modules hold."""
    held = [part for module in network.modules() for part in (module.__dict__, module._buffers)]
    before = [dict(part) for part in held]
    values = [(tensor, tensor.detach().clone()) for tensor in (*network.parameters(), *network.buffers())]
    try:
        yield
    finally:
        for now, then in zip(held, before):
            now.clear()
            now.update(then)
        with torch.no_grad():
            for tensor, value in values:
                tensor.grad = None
                if not torch.equal(tensor, value):
                    tensor.copy_(value)
