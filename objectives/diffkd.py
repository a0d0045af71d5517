"""Distillation by a diffusion model of the teacher's features. B samples, C channels, H x W pixels."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from objectives.contract import NOT_NEGATIVE, Range, objective
from objectives.layers import conv1x1, normalised, pointwise, same_size
from objectives.numerics import centred, mean_squared_distance

_TIMES = 1000  # of the diffusion
_BETAS = (1e-4, 0.02)  # variance of the noise that is added at the first time and at the last


@objective(reads="last", latent=NOT_NEGATIVE, steps=Range(1, _TIMES // 2))
class DiffKd(nn.Module):
    """Mean squared distance of the teacher's map from the student's, with its noise removed by a diffusion model.

    Huang et al., NeurIPS 2023, Knowledge diffusion for distillation, arXiv 2305.15712, with the layers of the authors'
    code. An autoencoder of 1 x 1 convolutions makes the teacher's map smaller; a network of bottlenecks learns to tell
    noise from it; the student's map, mixed with noise in a share that it says itself, goes through ``steps`` steps of
    DDIM (Song et al., ICLR 2021, arXiv 2010.02502, equation 12) over the less noisy half of the times. The errors of
    the autoencoder and of the noise are added, each with weight 1; the autoencoder learns from its own alone. The
    larger map is average-pooled to the size of the smaller.

    Published on ImageNet: weight 1, ``latent`` 1024, beside a second diffusion model for the logits, which would be
    four times as wide as there are classes. That is not here: `kd` at T = 1 compares the logits as they are.

    Args:
        student: an example of the last map [B, C_s, H, W].
        teacher: likewise [B, C_t, H', W'].
        latent: channels between the autoencoder's convolutions; half the teacher's when 0.
        steps: see above. Noise is drawn anew at each pass by torch.
    """

    signal: Tensor  # [_TIMES], share of the variance that is not noise

    def __init__(self, student: Tensor, teacher: Tensor, *, latent: int = 0, steps: int = 5) -> None:
        super().__init__()
        channels = latent or max(1, teacher.shape[1] // 2)
        self.encoder, self.decoder = pointwise(teacher.shape[1], channels), conv1x1(channels, teacher.shape[1])
        self.connector, self.projector = conv1x1(student.shape[1], channels), pointwise(channels, channels)
        self.adapter, self.denoiser = _Adapter(channels), _Denoiser(channels)
        self.steps = steps
        betas = torch.linspace(*_BETAS, _TIMES, dtype=torch.float64)
        self.register_buffer("signal", (1 - betas).cumprod(0).float(), persistent=False)

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Scalar, of maps [B, C, H, W]."""
        code = self.encoder(teacher)
        rebuilt = mean_squared_distance(self.decoder(code), teacher)
        ours, theirs = same_size(self.connector(student), code.detach())
        start, times, noise = self.draws(theirs)
        signal = self.signal[times].view(-1, 1, 1, 1)
        noisy = signal.sqrt() * theirs + (1 - signal).sqrt() * noise
        diffusion = mean_squared_distance(self.denoiser(noisy, times), noise)
        share = self.adapter(ours)
        refined = self.projector(self.denoised(share * ours + (1 - share) * start))
        return mean_squared_distance(refined, theirs) + diffusion + rebuilt

    def draws(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Noise for the student, of the shape of x [B, C, H, W], times int64 [B], and noise for the teacher."""
        times = torch.randint(_TIMES, (len(x),), device=x.device)
        return torch.randn_like(x), times, torch.randn_like(x)

    def denoised(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> the same shape, by as many steps."""
        stride = _TIMES // (2 * self.steps)
        for time in range((self.steps - 1) * stride, -1, -stride):
            now = self.signal[time]
            before = self.signal[time - stride] if time else torch.ones_like(now)
            noise = self.denoiser(x, torch.full((len(x),), time, device=x.device))
            clean = (x - (1 - now).sqrt() * noise) / now.sqrt()
            x = before.sqrt() * clean + (1 - before).sqrt() * noise
        return x


class _Denoiser(nn.Module):
    """What noise there is in a map at a time."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.times = nn.Embedding(_TIMES, channels)
        self.blocks = nn.ModuleList(_bottleneck(channels, channels // 4) for _ in range(2))
        self.last = pointwise(channels, channels)

    def forward(self, x: Tensor, times: Tensor) -> Tensor:
        """[B, C, H, W], int64 [B] -> [B, C, H, W]."""
        x = x + self.times(times)[:, :, None, None]
        for block in self.blocks:
            x = x + block(x)
        noise: Tensor = self.last(x)
        return noise


class _Adapter(nn.Module):
    """The share of a map in its mixture with noise, so that this is as noisy as the diffusion model expects it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.block, self.shares = _bottleneck(channels, channels // 8), nn.Linear(channels, 2)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, 1, 1, 1], from 0 to 1."""
        # Centred, which its batch norm does too, or three of them enlarge the gradient of a constant map 3e7 times.
        x = x + self.block(centred(x, (0, 2, 3)))
        pooled = F.avg_pool2d(x, x.shape[2:]).flatten(1)  # the gradient of a mean is not channels_last
        return self.shares(pooled).softmax(1)[:, :1, None, None]


def _bottleneck(channels: int, between: int) -> nn.Sequential:
    """Convolutions of 1 x 1, 3 x 3 and 1 x 1 pixels with batch norms; [B, channels, H, W] -> the same shape."""
    between = max(1, between)
    return nn.Sequential(
        pointwise(channels, between, nn.ReLU()),
        normalised(nn.Conv2d(between, between, 3, padding=1, bias=False), nn.ReLU()),
        pointwise(between, channels),
    )
