"""Features of several teachers on one scale. B samples, C channels, H x W pixels."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from objectives.contract import NOT_NEGATIVE, objective
from objectives.layers import perceptron, same_size
from objectives.numerics import ROUNDING
from utils.distributed import all_cat, all_mean


@objective("phi_s", reads="last", hidden=NOT_NEGATIVE)
class PhiS(nn.Module):
    """Mean squared distance of a projection from the teacher's map, rotated so that all its channels vary alike.

    Ranzinger et al., 2024, PHI-S: distribution balancing for label-free multi-teacher distillation, arXiv 2410.01680.
    Of features with mean m and covariance U L U', the target is H U' (y - m) / phi with a Hadamard matrix H, its rows
    of length one, and phi^2 = tr(L) / C, so that each channel has variance 1 and all teachers weigh the same. The
    projection is that of their models, for each pixel a linear layer, layer norm, GELU and a linear layer; the larger
    map is average-pooled to the size of the smaller. One term a teacher, with weight 1; no labels are needed.

    Mean and covariance are those of the first training batch, of all ranks, and are kept; the authors' code follows
    them for 3000 steps. Where no Hadamard matrix of C rows is known here (2^n, or 2^n (q + 1) with q a prime 4 k - 1),
    H is the Hartley transform: the variance is then 1 on the average over the channels, so that teachers weigh the same
    still, but that of a channel lies between 0 and 2, far from 1 where a few directions hold most of the variance.

    Args:
        student: an example of the last map [B, C_s, H, W].
        teacher: likewise [B, C_t, H', W'].
        hidden: outputs of the first linear layer; C_t when 0.
    """

    mean: Tensor  # [C_t]
    rotation: Tensor  # [C_t, C_t], H U' / phi
    measured = False  # whether they are those of the data

    def __init__(self, student: Tensor, teacher: Tensor, *, hidden: int = 0) -> None:
        super().__init__()
        channels = teacher.shape[1]
        self.head = perceptron(student.shape[1], hidden or channels, channels)
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("rotation", torch.eye(channels))

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Scalar, of maps [B, C, H, W]."""
        ours, theirs = (x.permute(0, 2, 3, 1) for x in same_size(student, teacher))  # [B, H, W, C]
        if self.training and not self.measured:
            self._measure(theirs.flatten(0, 2))
        return (self.head(ours) - (theirs - self.mean) @ self.rotation.mT).square().mean()

    @torch.no_grad()
    def _measure(self, pixels: Tensor) -> None:
        """Set the mean and the rotation by pixels [N, C]."""
        pixels = pixels.double()
        mean, squares = all_mean(pixels.mean(0)), all_mean(pixels.mT @ pixels / len(pixels))
        values, vectors = torch.linalg.eigh(squares - mean.outer(mean))
        scale = values.clamp(min=0).mean().sqrt()
        constant = scale <= ROUNDING * squares.diagonal().mean().sqrt()
        turned = (hadamard(len(mean)).to(vectors) @ vectors.mT / scale.masked_fill(constant, math.inf)).float()
        self.mean.copy_(mean)
        self.rotation.copy_(all_cat(turned, 0)[: len(mean)])  # vectors have any sign: those of the first rank
        self.measured = True

    # Beside the buffers, and no buffer itself: to read one a GPU would be waited for in every step.
    def get_extra_state(self) -> Tensor:
        """Whether the data has been measured."""
        return torch.tensor(self.measured)

    def set_extra_state(self, state: Tensor) -> None:
        """As it was saved."""
        self.measured = bool(state)


def hadamard(order: int) -> Tensor:
    """Rows of length one at right angles, entries alike but for their sign; float64 [order, order].

    Sylvester's doubling of Paley's first construction; for an order that it does not reach the Hartley transform, whose
    squared entries lie between 0 and 2 / order.
    """
    doublings = 0
    while order % 2**doublings == 0:
        rows = order >> doublings
        if rows == 1 or (rows % 4 == 0 and _is_prime(rows - 1)):
            matrix = torch.ones(1, 1, dtype=torch.float64) if rows == 1 else _paley(rows - 1)
            for _ in range(doublings):
                matrix = torch.kron(torch.tensor([[1.0, 1.0], [1.0, -1.0]]).to(matrix), matrix)
            return matrix / math.sqrt(order)
        doublings += 1
    place = torch.arange(order, dtype=torch.float64)
    angle = 2 * math.pi / order * (place.outer(place) % order)
    return (angle.cos() + angle.sin()) / math.sqrt(order)


def _paley(prime: int) -> Tensor:
    """Of entries 1 and -1, [prime + 1, prime + 1]."""
    squares = {number**2 % prime for number in range(1, prime)}
    signs = torch.tensor([0.0, *(1.0 if number in squares else -1.0 for number in range(1, prime))]).double()
    place = torch.arange(prime)
    matrix = torch.eye(prime + 1, dtype=torch.float64)
    matrix[0, 1:] = 1
    matrix[1:, 0] = -1
    matrix[1:, 1:] += signs[(place[:, None] - place) % prime]
    return matrix


def _is_prime(number: int) -> bool:
    return number > 1 and all(number % divisor for divisor in range(2, math.isqrt(number) + 1))
