"""What keeps objectives exact in float32, and their gradients small where there is nothing to compare."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import wraps
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

Function = TypeVar("Function", bound=Callable[..., Tensor])

ROUNDING = 1e-6  # relative, of what a network computes in float32


def in_float64(function: Function) -> Function:
    """Decorate a function of tensors: it computes in float64 and returns the precision of its first one.

    Logarithms of probabilities next to 0 or 1, and distances of distributions next to each other, are differences of
    numbers that are equal in float32: of 100,000 classes it may not give a single digit of a divergence.
    Logits are small beside the maps of a network, so this costs nothing in a step.
    """

    @wraps(function)
    def computed(*inputs: Any, **named: Any) -> Tensor:
        given = [x for x in (*inputs, *named.values()) if isinstance(x, Tensor)]
        values = function(*map(_double, inputs), **{name: _double(x) for name, x in named.items()})
        return values.to(given[0].dtype)

    return cast(Function, computed)


def _double(x: Any) -> Any:
    return x.double() if isinstance(x, Tensor) and x.is_floating_point() else x


def unit(x: Tensor, dim: int | tuple[int, ...] = 1, *, epsilon: float = 0.0, least: float = 1e-12) -> Tensor:
    """x over its length along ``dim``; zero, without a gradient, where that is below ``least``.

    Args:
        x: [..., D, ...], D at ``dim``.
        dim: of the vectors, or several whose entries are one vector.
        epsilon: added to the lengths.
        least: above the rounding of a zero vector.
    """
    length = torch.linalg.vector_norm(x, dim=dim, keepdim=True)
    return x / (length + epsilon).masked_fill(length < least, math.inf)


def centred(x: Tensor, dim: int | tuple[int, ...] = 1) -> Tensor:
    """x minus its mean along ``dim``; zero, without a gradient, where it is constant up to float32's rounding.

    Args:
        x: [..., D, ...], D at ``dim``.
        dim: of the vectors, or several whose entries are one vector.
    """
    rest = x - x.mean(dim, keepdim=True)
    constant = rest.abs().amax(dim, keepdim=True) <= ROUNDING * x.abs().amax(dim, keepdim=True)
    return rest * ~constant  # `masked_fill` would change the memory format of maps


def mean_squared_distance(x: Tensor, y: Tensor) -> Tensor:
    """Mean of (x - y)^2; the gradient has the memory format of x, which that of `F.mse_loss` has not."""
    return (x - y).square().sum() / x.numel()


def reduced(total: Tensor, reduction: str, samples: int, each: int) -> Tensor:
    """A sum over ``samples`` times ``each`` entries, reduced as an option of that name says.

    Args:
        total: scalar.
        reduction: `sum`, the total itself; `batchmean`, over the samples; `mean`, over all entries.
        samples: of the batch.
        each: entries of a sample.

    Raises:
        ValueError: it is another one.
    """
    divisors = {"sum": 1, "batchmean": samples, "mean": samples * each}
    if reduction not in divisors:
        raise ValueError(f"reduction={reduction}: one of {', '.join(divisors)}")
    return total / divisors[reduction]


def power(base: Tensor, exponent: float) -> Tensor:
    """base^exponent of what is not negative; without a gradient where it is 0, which that of `pow` may not survive."""
    is_zero = base <= torch.finfo(base.dtype).tiny
    return base.masked_fill(is_zero, 1).pow(exponent).masked_fill(is_zero, 0.0**exponent)


def summed(losses: Iterable[Tensor]) -> Tensor:
    """The sum of scalars, such as those of the stages."""
    return torch.stack(list(losses)).sum()
