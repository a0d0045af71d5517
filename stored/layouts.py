"""How the teacher's logits for a view are kept: records of equal size. n views, K classes.

- `all`: every class, in float32 (the logits, bit for bit), float16, or int8 in the range of the view.
- `topk`: the k likeliest classes, the true one always among them, and the mass of the rest, spread evenly.
- `prior`: the same, with the rest shaped by the image. The log-probabilities of the rest are nearly an affine function
  of the image's mean log-probabilities over a few views, its prior, which is kept once, K bytes an image. A view keeps
  the slope; the offset follows from the mass of the rest. Nobody seems to have published this one.

TinyViT (Wu et al., ECCV 2022, arXiv 2207.10666) and FKD (Shen & Xing, ECCV 2022, arXiv 2112.01528) keep the k largest
probabilities at T = 1, the rest spread evenly. At T = 4 the ten largest of an ImageNet teacher hold 6 % of the mass.
So `topk` and `prior` keep log-probabilities: logits less a constant, which an objective divides by its own
temperature. `python -m benchmarks.stored_layouts` prints what each layout loses.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from utils.errors import UsageError
from utils.settings import setting

Type = Literal["float32", "float16", "int8"]

_LOWEST = -64.0  # below the largest logit, where int8 ends: 10^-7 of its share even at T = 4
_LOWEST_KEPT = -32.0  # log-probability of a class that `topk` and `prior` keep
_LEVELS = 255  # of a byte
_POWER = 0.5  # of probabilities, as weights of the slope's fit: 1 is best at T = 1, 0.25 at T = 4
_ROWS = 256  # that are decoded at a time: [256, 1000] float32 is 1 MB, near what a core's own cache holds
_HALF = torch.finfo(torch.float16).max


@dataclass(frozen=True)
class LayoutConfig:
    """What is kept of a teacher's outputs for a view."""

    name: Literal["", "prior", "topk", "all"] = ""
    """prior (k classes, the rest shaped by the image's mean over a few views), topk (k classes, the rest spread
    evenly), all (every class); prior where more than 2 k classes compete, else all, when not given"""
    k: int = setting(11, least=1, used_with={"name": ("", "prior", "topk")})
    """prior and topk: classes of a view that are kept each, the true one among them"""
    type: Type = setting("int8", used_with={"name": ("", "all")})
    """all: how a number is kept"""
    views: int = setting(8, least=1, used_with={"name": ("", "prior")})
    """prior: views of each image that it is the mean of"""
    pooled: Type = "float16"
    """how a number of the pooled features is kept, where a term reads them"""
    detections: int | None = setting(None, least=1, most=65_535)
    """of detectors: how many of a view's detections are kept, those of highest score; all that the detector gives
    (detector.detections) when not given"""


def layout_of(config: LayoutConfig, classes: int, *, competing: bool) -> Layout:
    """The layout of ``config`` for logits of classes that are ``competing`` (softmax), or each for itself (sigmoid).

    Where it names none, `prior`; but `all` where each is for itself, and of few classes: no more bytes then.

    Raises:
        UsageError: it is for the other kind.
    """
    name = config.name or ("prior" if competing and classes > 2 * config.k else "all")
    if name == "all":
        return All(config.type, competing)
    if not competing:
        raise UsageError(
            f"layout.name={name} keeps the likeliest of classes that compete; this teacher judges each class for "
            "itself: set layout.name=all, a byte a class with layout.type=int8"
        )
    return Likeliest(config.k, needs_prior=name == "prior")


def prior_of(logits: Sequence[Tensor] | Tensor) -> Tensor:
    """The prior of n images: the mean of their log-probabilities over m views, int8 in the range of the image.

    Nothing but its shape counts, as each view has a slope and an offset of its own.

    Args:
        logits: of m views, float [n, K] each.

    Returns:
        int8 [n, K].
    """
    mean = torch.stack([view.double().log_softmax(1).clamp(min=_LOWEST) for view in logits]).mean(0)
    low, high = mean.amin(1, keepdim=True), mean.amax(1, keepdim=True)
    return (_levels(mean, low, high) - 128).to(torch.int8)


class Layout(ABC):
    """From logits to records and back, each row for itself.

    NaN or inf among the logits of a view decodes to NaN, so that a teacher that diverged is still seen. -inf decodes to
    a finite number, but in float32.
    """

    needs_prior = False

    @abstractmethod
    def size(self, classes: int) -> int:
        """Bytes of a record of K = ``classes`` classes."""

    @abstractmethod
    def encode(self, logits: Tensor, labels: Tensor | None = None, prior: Tensor | None = None) -> Tensor:
        """Records of views.

        Args:
            logits: float [n, K].
            labels: true classes, int64 [n], where there are any.
            prior: of the image of each view, int8 [n, K], where the layout `needs_prior`.

        Returns:
            uint8 [n, size(K)].
        """

    @abstractmethod
    def decode(self, records: Tensor, classes: int, prior: Tensor | None = None) -> Tensor:
        """Logits of views.

        Args:
            records: uint8 [n, size(K)].
            classes: K.
            prior: as they were encoded with.

        Returns:
            float32 [n, K].
        """


@dataclass(frozen=True)
class All(Layout):
    """Every class, or any other row of numbers such as pooled features.

    float16 keeps logits of competing classes less their maximum, others as they are; int8 keeps lowest and highest of
    the row in float32, and each number as one of 256 levels between them.
    """

    type: Type
    competing: bool

    def size(self, classes: int) -> int:
        """See `Layout.size`."""
        return {"float32": 4 * classes, "float16": 2 * classes, "int8": 8 + classes}[self.type]

    def encode(self, logits: Tensor, labels: Tensor | None = None, prior: Tensor | None = None) -> Tensor:
        """See `Layout.encode`."""
        if self.type == "float32":
            return bytes_of(logits.to(torch.float32, copy=True))
        seen = logits.double().masked_fill(logits == torch.inf, torch.nan)
        highest = seen.amax(1, keepdim=True)
        if self.type == "float16":
            return bytes_of(_halves(seen - highest if self.competing else seen))
        if self.competing:
            seen = seen.clamp(min=highest + _LOWEST)
        lowest = seen.masked_fill(seen == -torch.inf, torch.inf).amin(1, keepdim=True)
        ends = torch.cat([lowest, highest], 1).float()
        levels = _levels(seen, *ends.double().split(1, 1))
        return torch.cat([bytes_of(ends), levels.to(torch.uint8)], 1)

    def decode(self, records: Tensor, classes: int, prior: Tensor | None = None) -> Tensor:
        """See `Layout.decode`."""
        if self.type == "float32":
            return numbers_of(records, torch.float32)
        if self.type == "float16":
            return numbers_of(records, torch.float16).float()
        lowest, highest = numbers_of(records[:, :8], torch.float32).split(1, 1)
        return records[:, 8:].float().mul_((highest - lowest) / _LEVELS).add_(lowest)


@dataclass(frozen=True)
class Likeliest(Layout):
    """The k likeliest classes, and what the rest have together; evenly, or in the shape of the prior.

    A record has k indices of as many bits as K needs, k bytes of log-probabilities, whose levels are closer near 0, the
    logarithm of the rest's mass in float16 and, with a prior, the slope in float16. 29 bytes with k = 11, K = 1000.
    """

    k: int
    needs_prior: bool = False

    def size(self, classes: int) -> int:
        """See `Layout.size`."""
        k = min(self.k, classes)
        return packed_size(k, classes) + k + (4 if self.needs_prior else 2)

    def encode(self, logits: Tensor, labels: Tensor | None = None, prior: Tensor | None = None) -> Tensor:
        """See `Layout.encode`."""
        places = likeliest(logits, min(self.k, logits.shape[1]), labels)
        logp = logits.double().log_softmax(1)
        kept = (logp.gather(1, places) / _LOWEST_KEPT).clamp(0, 1).sqrt() * _LEVELS
        is_rest = torch.ones_like(logp, dtype=torch.bool).scatter(1, places, value=False)
        mass = logp.masked_fill(~is_rest, -torch.inf).logsumexp(1, keepdim=True)
        mass = mass.masked_fill(logp.isnan().any(1, keepdim=True), torch.nan)  # also where there is no rest
        parts = [pack(places, logits.shape[1]), kept.round().nan_to_num().to(torch.uint8), bytes_of(_halves(mass))]
        if self.needs_prior:
            assert prior is not None
            parts.append(bytes_of(_halves(slope_of(logp, prior.double(), is_rest))))
        return torch.cat(parts, 1)

    def decode(self, records: Tensor, classes: int, prior: Tensor | None = None) -> Tensor:
        """See `Layout.decode`; the exponentials of a row sum to 1."""
        k = min(self.k, classes)
        ends = packed_size(k, classes), packed_size(k, classes) + k
        places = unpack(records[:, : ends[0]], k, classes)
        kept = _LOWEST_KEPT * (records[:, ends[0] : ends[1]].float() / _LEVELS).square()
        numbers = numbers_of(records[:, ends[1] :], torch.float16).float()
        mass = numbers[:, :1]
        total = torch.cat([kept, mass], 1).logsumexp(1, keepdim=True)  # levels are rounded: not quite 0
        kept, mass = kept - total, mass - total
        if self.needs_prior:
            assert prior is not None
            logits = _shaped(prior, numbers[:, 1:], mass, places)
        else:
            logits = (mass - math.log(max(1, classes - k))).repeat(1, classes)
        return logits.scatter_(1, places, kept)


def likeliest(logits: Tensor, k: int, labels: Tensor | None = None) -> Tensor:
    """The k classes with the largest logits, where there is a label its class among them; of equals the first.

    Args:
        logits: float [n, K].
        k: at most K.
        labels: int64 [n]; one that is not among them takes the place of the last.

    Returns:
        int64 [n, k], the largest first.
    """
    bits = (logits.float() + 0.0).view(torch.int32).long()  # + 0: -0 has other bits than 0
    rising = torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits)
    # `topk` of equals depends on the device and on n: no two are
    order = rising * logits.shape[1] + torch.arange(logits.shape[1] - 1, -1, -1, device=logits.device)
    places = order.topk(k, 1).indices
    if labels is not None:
        absent = (places != labels[:, None]).all(1)
        places[:, -1] = torch.where(absent, labels, places[:, -1])
    return places


def slope_of(logp: Tensor, prior: Tensor, is_rest: Tensor) -> Tensor:
    """The slope of the line through (prior, log-probability) of the rest, by least squares weighted with p^0.5.

    Args:
        logp: log-probabilities, float64 [n, K].
        prior: float64 [n, K].
        is_rest: bool [n, K].

    Returns:
        float64 [n, 1]; 0 where the prior is the same for all.
    """
    logp = logp.clamp(min=_LOWEST)
    weights = (logp * _POWER).masked_fill(~is_rest, -torch.inf).softmax(1)
    centred = prior - (weights * prior).sum(1, keepdim=True)
    weighted = weights * centred
    variance = (weighted * centred).sum(1, keepdim=True)
    slope = (weighted * logp).sum(1, keepdim=True) / variance
    return torch.where(variance > 1e-9, slope, 0.0)  # also of NaN: the mass tells


def packed_size(count: int, classes: int) -> int:
    """Bytes of ``count`` indices below ``classes``."""
    return -(-count * _bits(classes) // 8)


def pack(indices: Tensor, classes: int) -> Tensor:
    """Indices below K in as few bits each as K needs, the lowest bit first: int64 [n, k] -> uint8 [n, bytes]."""
    bits = indices[:, :, None] >> torch.arange(_bits(classes), device=indices.device) & 1
    bits = bits.flatten(1)
    whole = torch.nn.functional.pad(bits, (0, -bits.shape[1] % 8)).unflatten(1, (-1, 8))
    return (whole << torch.arange(8, device=indices.device)).sum(2).to(torch.uint8)


def unpack(packed: Tensor, count: int, classes: int) -> Tensor:
    """The inverse of `pack`: uint8 [n, bytes] -> int64 [n, count], all below ``classes``, whatever the bytes."""
    bits = _bits(classes)
    first = torch.arange(count, device=packed.device) * bits
    indices = torch.zeros(len(packed), count, dtype=torch.int64, device=packed.device)
    for byte in range((bits + 14) // 8):  # that an index may touch; beyond the last one are bits of none
        columns = (first // 8 + byte).clamp(max=packed.shape[1] - 1)
        indices |= packed[:, columns].long() << 8 * byte
    return (indices >> first % 8 & (1 << bits) - 1).clamp_(max=classes - 1)


def _bits(classes: int) -> int:
    return max(1, (classes - 1).bit_length())


def _shaped(prior: Tensor, slope: Tensor, mass: Tensor, places: Tensor) -> Tensor:
    """slope x prior plus what gives all but ``places`` the logarithm of their ``mass``; those are left undefined."""
    logits = torch.empty(prior.shape, device=prior.device)
    room = torch.empty_like(logits[:_ROWS])
    for start in range(0, len(logits), _ROWS):
        rows = slice(start, start + _ROWS)
        part = logits[rows].copy_(prior[rows]).mul_(slope[rows]).scatter_(1, places[rows], -torch.inf)
        top = part.amax(1, keepdim=True)
        total = torch.sub(part, top, out=room[: len(part)]).exp_().sum(1, keepdim=True)
        part.add_(mass[rows] - top - total.log_())
    return logits


def _levels(numbers: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """The number of the nearest of 256 levels from ``low`` to ``high``."""
    return ((numbers - low) / (high - low) * _LEVELS).round().clamp(0, _LEVELS).nan_to_num()  # 0 where they are equal


def _halves(numbers: Tensor) -> Tensor:
    return numbers.clamp(-_HALF, _HALF).half()


def bytes_of(numbers: Tensor) -> Tensor:
    """The memory of ``numbers`` [n, k], uint8 [n, bytes]."""
    return numbers.contiguous().view(torch.uint8)


def numbers_of(data: Tensor, type: torch.dtype) -> Tensor:
    """The inverse: uint8 [n, bytes] -> [n, k] of ``type``."""
    return data.clone(memory_format=torch.contiguous_format).view(type)  # a part of a record may be unaligned
