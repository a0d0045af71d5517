"""Factor transfer. B samples, C channels, H x W pixels."""

from __future__ import annotations

from collections import OrderedDict
from itertools import pairwise

from torch import Tensor, nn

from objectives.contract import POSITIVE, Range, objective
from objectives.maps import factor_distance, mean_squared_distance, same_size


@objective(reads="last", rate=POSITIVE, power=Range(1))
class Ft(nn.Module):
    """Distance of the student's translated map from the factors that an autoencoder finds in the teacher's.

    Kim et al., Paraphrasing complex network, NeurIPS 2018, arXiv 1802.04977, equations 1 to 3. The autoencoder, the
    paraphraser, is trained first, in a phase with `trainable=("terms.ft.paraphraser",)`, then frozen: wherever it
    moves, the mean squared error of its reconstruction is added, which has no gradient for anything else. Without that
    phase it moves under the whole weight of the term and may diverge. Three convolutions with leaky ReLUs each way,
    without batch norm as in RepDistiller. The weight of the authors' code is 500.

    Args:
        student: an example of the last map [B, C_s, H, W].
        teacher: likewise [B, C_t, H', W'].
        rate: channels of the factors, over C_t.
        power: of the distances of the normalised factors.
        over_channels: compare the factors' mean squares over channels, as RepDistiller does, with a weight of 200.
    """

    def __init__(
        self, student: Tensor, teacher: Tensor, *, rate: float = 0.5, power: float = 1.0, over_channels: bool = False
    ) -> None:
        super().__init__()
        channels = teacher.shape[1]
        factors = max(1, round(rate * channels))
        parts = {
            "encoder": _layers(nn.Conv2d, channels, channels, factors, factors),
            "decoder": _layers(nn.ConvTranspose2d, factors, factors, channels, channels),
        }
        self.paraphraser = nn.Sequential(OrderedDict(parts))
        self.translator = _layers(nn.Conv2d, student.shape[1], student.shape[1], factors, factors)
        self.power, self.over_channels = power, over_channels

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Scalar, of maps [B, C, H, W]."""
        encoder, decoder = self.paraphraser
        factors = encoder(teacher)  # [B, factors, H', W']
        ours, theirs = same_size(self.translator(student), factors.detach())
        if self.over_channels:
            ours, theirs = (x.square().mean(1) for x in (ours, theirs))  # [B, H, W]
        distance = factor_distance(ours, theirs, power=self.power)
        return distance + mean_squared_distance(decoder(factors), teacher) if self.paraphraser.training else distance


def _layers(kind: type[nn.Conv2d] | type[nn.ConvTranspose2d], *channels: int) -> nn.Sequential:
    """3 x 3 convolutions with leaky ReLUs; [B, channels[0], H, W] -> [B, channels[-1], H, W]."""
    layers = [(kind(one, other, 3, padding=1), nn.LeakyReLU(0.1)) for one, other in pairwise(channels)]
    return nn.Sequential(*(part for layer in layers for part in layer))
