"""Feature mimicking by locality sensitive hashing. B samples, D dimensions, K hashes."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from objectives.contract import COUNT, NOT_NEGATIVE, objective
from objectives.layers import Maps
from objectives.numerics import unit
from utils.distributed import all_mean

_Distance = Callable[[Tensor, Tensor], Tensor] | None
_BIASES = ("zero", "mean", "median")


@objective(reads="pooled", logits="any", hashes=NOT_NEGATIVE)
class Lshfm(nn.Module):
    """The student's feature falls on the same side of K random hyperplanes as the teacher's, and near it.

    Wang et al., TPAMI 2021, In defense of feature mimicking for knowledge distillation, arXiv 2011.01424, equations 5
    to 8: binary cross-entropy of the hashes W f_s + b with the signs of W f_t + b, averaged over B and K, plus the mean
    squared distance of the features (LSHL2; LSH and L2 are one of the two). ``correct_only`` averages over the samples
    that the teacher classifies correctly. Features are what the classifiers see, of equal dimensions:
    `student.head.name=embedding` brings the student's to the teacher's. Published: K = 32 D on CIFAR-100 with median
    biases, correct samples only and weight 6; 2048 on ImageNet with biases of zero and weight 5. On multi-label data
    beside `bce` with median biases: on VOC 2007 K = 2048 or 8192 and weight 0.5, on COCO K = 2048 and weight 3.

    Args:
        student: an example [B, D].
        teacher: likewise.
        teacher_head_weight: [classes, D]; the hyperplanes have its standard deviation.
        hashes: K; 32 D when 0.
        hash_distance: `sign`, or `l1`, `l2`: mean distance of the hashes; or `none`.
        feature_distance: `l2`, `l1`, `l2_normalised` (of features of length one), or `none`.
        correct_only: see above.
        bias: `zero`, or that of hyperplanes through the `mean` or the `median` of the teacher's features, which is
            followed as training goes: the average of the batches', over all ranks.

    Raises:
        ValueError: the dimensions differ, or a choice is another one.
    """

    weight: Tensor  # [K, D]
    bias: Tensor  # [K]
    batches: Tensor  # scalar, how many the bias has followed

    def __init__(
        self,
        student: Tensor,
        teacher: Tensor,
        teacher_head_weight: Tensor,
        *,
        hashes: int = 0,
        hash_distance: str = "sign",
        feature_distance: str = "l2",
        correct_only: bool = False,
        bias: str = "zero",
    ) -> None:
        super().__init__()
        dimensions = teacher.shape[1]
        if student.shape[1] != dimensions:
            raise ValueError(
                f"lshfm compares features of equal dimensions, not {student.shape[1]} and {dimensions}: "
                f"set student.head.name=embedding student.head.options.dimensions={dimensions}"
            )
        self.hash, self.feature = _chosen(hash_distance, feature_distance, _FEATURE)
        if bias not in _BIASES:
            raise ValueError(f"bias={bias}: one of {', '.join(_BIASES)}")
        self.correct_only, self.follows = correct_only, bias
        count = hashes or 32 * dimensions
        self.register_buffer("weight", torch.randn(count, dimensions) * teacher_head_weight.detach().float().std())
        self.register_buffer("bias", torch.zeros(count))
        self.register_buffer("batches", torch.zeros(()))

    def forward(self, student: Tensor, teacher: Tensor, teacher_logits: Tensor, labels: Tensor | None = None) -> Tensor:
        """Scalar.

        Args:
            student: [B, D].
            teacher: [B, D].
            teacher_logits: [B, classes].
            labels: int64 [B], for ``correct_only``.

        Raises:
            ValueError: there are none, and it is set.
        """
        if self.hash is not None and self.follows != "zero" and self.training:
            self._follow(teacher)
        losses = []  # each [B]
        if self.hash is not None:
            hashes = (F.linear(x, self.weight, self.bias) for x in (student, teacher))  # [B, K]
            losses.append(self.hash(*hashes))
        if self.feature is not None:
            losses.append(self.feature(student, teacher))
        loss = torch.stack(losses).sum(0)
        if not self.correct_only:
            return loss.mean()
        if labels is None:
            raise ValueError("correct_only=True: only for data with one class an image, and this batch has no labels")
        correct = (teacher_logits.argmax(1) == labels).to(loss.dtype)
        return (loss * correct).sum() / correct.sum().clamp(min=1)

    @torch.no_grad()
    def _follow(self, teacher: Tensor) -> None:
        self.batches += 1
        self.bias += (all_mean(hash_bias(teacher, self.weight, self.follows)) - self.bias) / self.batches


@objective("lshfm_windows", reads="towers", hashes=COUNT)
class LshfmWindows(nn.Module):
    """`Lshfm` of the 3 x 3 windows that the classifiers of one-stage detectors see, with biases of zero.

    Wang et al., TPAMI 2021, arXiv 2011.01424: each location of the classification towers is a sample of 9 C dimensions,
    zeros beyond the edges. Averaged over the usable locations of an image, then over the images that have any.
    Published for RetinaNet: weight 7; of VGG networks 8, and 6 for hashes alone.

    Args:
        student: an example of the towers' last maps [B, C, H, W], level by level.
        teacher: likewise.
        teacher_head_weight: [classes times anchors, 9 C]; the hyperplanes have its standard deviation.
        hashes: K.
        hash_distance: as that of `lshfm`.
        feature_distance: `l2`, `l1` or `none`.

    Raises:
        ValueError: the channels differ, or a choice is another one.
    """

    weight: Tensor  # [K, C, 3, 3]: windows hashed by a convolution, which does not write them out
    bias: Tensor  # [K]

    def __init__(
        self,
        student: Maps,
        teacher: Maps,
        teacher_head_weight: Tensor,
        *,
        hashes: int = 4096,
        hash_distance: str = "sign",
        feature_distance: str = "l2",
    ) -> None:
        super().__init__()
        channels = {x.shape[1] for x in (*student, *teacher)}
        if len(channels) > 1:
            raise ValueError(f"lshfm_windows compares towers of equal channels, not of {sorted(channels)}")
        self.hash, self.feature = _chosen(hash_distance, feature_distance, _OF_PLACES)
        spread = teacher_head_weight.detach().float().std()
        self.register_buffer("weight", torch.randn(hashes, *channels, 3, 3) * spread)
        self.register_buffer("bias", torch.zeros(hashes))

    def forward(self, student: Maps, teacher: Maps, student_usable: Tensor) -> Tensor:
        """Scalar.

        Args:
            student: [B, C, H, W], level by level.
            teacher: maps of the same shapes.
            student_usable: bool [B, L], of all locations of all levels, row by row.

        Raises:
            ValueError: the teacher lacks levels of the student.
        """
        losses = torch.cat([self._of_each(s, t).flatten(1) for s, t in zip(student, teacher)], 1)
        if losses.shape != student_usable.shape:
            raise ValueError(
                f"lshfm_windows compares all levels of the student, which have {student_usable.shape[1]} locations; "
                f"those that the teacher has too have {losses.shape[1]}"
            )
        usable = student_usable.to(losses.dtype)  # [B, L]
        of_images = (losses * usable).sum(1) / usable.sum(1).clamp(min=1)
        return of_images.sum() / student_usable.any(1).sum().clamp(min=1)

    def _of_each(self, student: Tensor, teacher: Tensor) -> Tensor:
        """The loss of each location; [B, C, H, W], [B, C, H, W] -> [B, H, W]."""
        losses = []
        if self.hash is not None:
            hashes = (F.conv2d(x, self.weight, self.bias, padding=1) for x in (student, teacher))  # [B, K, H, W]
            losses.append(self.hash(*hashes))
        if self.feature is not None:  # a mean over places, then over 3 x 3 of them
            losses.append(F.avg_pool2d(self.feature(student, teacher)[:, None], 3, 1, 1)[:, 0])
        return torch.stack(losses).sum(0)


def hash_bias(features: Tensor, weight: Tensor, kind: str) -> Tensor:
    """Minus the `mean` or the (lower) `median` of the projections; features [B, D], weight [K, D] -> [K]."""
    projected = features @ weight.T  # [B, K]
    return -(projected.mean(0) if kind == "mean" else projected.median(0).values)


def _chosen(
    hash_distance: str, feature_distance: str, features: Mapping[str, _Distance]
) -> tuple[_Distance, _Distance]:
    """The distances called so, of hashes and of ``features``.

    Raises:
        ValueError: there is no such one, or both are none.
    """
    choices = {"hash_distance": (hash_distance, _HASH), "feature_distance": (feature_distance, features)}
    for option, (choice, known) in choices.items():
        if choice not in known:
            raise ValueError(f"{option}={choice}: one of {', '.join(known)}")
    if hash_distance == feature_distance == "none":
        raise ValueError("lshfm compares hashes, features or both: hash_distance and feature_distance are none")
    return _HASH[hash_distance], features[feature_distance]


def _signs(student: Tensor, teacher: Tensor) -> Tensor:
    """Binary cross-entropy with the teacher's signs; each [B, K, ...] -> [B, ...]."""
    return F.binary_cross_entropy_with_logits(student, (teacher > 0).to(student), reduction="none").mean(1)


def _l1(student: Tensor, teacher: Tensor) -> Tensor:
    return (student - teacher).abs().mean(1)


def _l2(student: Tensor, teacher: Tensor) -> Tensor:
    return (student - teacher).square().mean(1)


def _directions(student: Tensor, teacher: Tensor) -> Tensor:
    return _l2(unit(student), unit(teacher))


_HASH: dict[str, _Distance] = {"sign": _signs, "l1": _l1, "l2": _l2, "none": None}
_OF_PLACES: dict[str, _Distance] = {"l2": _l2, "l1": _l1, "none": None}
_FEATURE: dict[str, _Distance] = {**_OF_PLACES, "l2_normalised": _directions}
