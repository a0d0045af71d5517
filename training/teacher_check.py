"""Whether teachers know the data: each is scored on some validation images before the first step."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor, nn

from models.zoo import Network, NetworkConfig
from utils.distributed import any_rank, say
from utils.errors import UsageError

IMAGES = 512  # at most, for a teacher
_TOO_FEW = 10  # images that tell nothing

Score = Callable[[Callable[[Tensor], Tensor]], dict[str, float]]  # (images -> logits) -> top1, images


def check_teachers(teachers: nn.ModuleDict, configs: Mapping[str, NetworkConfig], classes: int, score: Score) -> None:
    """Tell the top-1 of every teacher beside chance, and refuse those that could as well guess.

    One whose normalisation, order of classes or weights are wrong trains a student without any other sign of it.

    Args:
        teachers: by name, scored in eval mode.
        configs: theirs.
        classes: how many occur in the validation images.
        score: on a part of these, over all ranks.

    Raises:
        UsageError: a teacher is below its `expect_top1`, or gives logits that are not finite.
    """
    chance = 100 / classes
    for name, teacher in teachers.items():
        assert isinstance(teacher, Network)
        teacher.eval()  # one with batch statistics too: the images lie by class, and the batches with them
        config = configs[name]
        if config.weights == "none":
            say(f"teachers.{name}: weights=none: nothing has trained it")
        broken: list[Tensor] = []

        def logits(images: Tensor, teacher: Network = teacher, broken: list[Tensor] = broken) -> Tensor:
            values = teacher.score(images)
            broken.append(~values.isfinite().all())
            return values

        scores = score(logits)
        if any_rank(any(map(bool, broken))):
            raise UsageError(f"teachers.{name} gives logits that are not finite: check its weights, {config.weights}")
        top1, images = scores["top1"], scores["images"]
        published = f", published {teacher.published_top1:.1f} on ImageNet-1K" if teacher.published_top1 else ""
        say(
            f"teachers.{name}, {config.name}: top-1 {top1:.1f} on {images:g} validation images "
            f"(chance {chance:.1f}{published})"
        )
        least = least_top1(classes) if config.expect_top1 is None else config.expect_top1
        if top1 < least and (images >= _TOO_FEW or config.expect_top1 is not None):
            raise UsageError(
                f"teachers.{name} has top-1 {top1:.1f} on {images:g} validation images, where at least {least:.1f} is "
                "expected: check that its classes are those of the data in the same order, its mean and std, and its "
                f"weights ({config.weights}). teachers.{name}.expect_top1=0 lets it teach as it is"
            )


def least_top1(classes: int) -> float:
    """What a teacher must reach, percent: three times chance, or a third of the way from chance to all if that is less.

    The second is for fewer than seven classes.
    """
    chance = 100 / classes
    return min(3 * chance, chance + (100 - chance) / 3)
