"""Whether teachers know the data: each is evaluated on some validation images before the first step."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import numpy as np
from torch import Tensor, nn

from models.outputs import Outputs, Scene
from tasks import Task
from teachers import Live, TeacherConfig
from training.scores import Scorer
from training.stored import Stored
from utils.distributed import any_rank, print_on_first
from utils.errors import UsageError

IMAGES = 512  # at most, for a teacher
_TOO_FEW = 10  # images to judge by


def check_teachers(
    teachers: nn.ModuleDict, configs: Mapping[str, TeacherConfig], task: Task, labels: np.ndarray, scorer: Scorer
) -> None:
    """Print the score of every teacher beside chance, and refuse those that could as well guess.

    One whose normalisation, order of classes or weights are wrong trains a student without any other sign of it.

    Args:
        teachers: by name, evaluated in eval mode.
        configs: theirs.
        task: whose primary score decides.
        labels: of the validation samples, as `Samples` has them.
        scorer: on a part of the validation images, over all ranks.

    Raises:
        UsageError: a teacher is below its `expect`, or gives logits that are not finite.
    """
    shown = re.sub(r"^top(?=\d)", "top-", task.primary)
    for name, given in teachers.items():
        teacher = given.live if isinstance(given, Stored) else given
        if teacher is None:  # its store is whole
            continue
        assert isinstance(teacher, Live)
        teacher.eval()  # one with batch statistics too: the images lie by class, and the batches with them
        network, config = teacher.network, configs[name]
        if config.weights == "none":
            print_on_first(f"teachers.{name}: weights=none: nothing has trained it")
        broken: list[Tensor] = []

        def predict(images: Tensor, scene: Scene, teacher: Live = teacher, broken: list[Tensor] = broken) -> Outputs:
            outputs = teacher.predict(images, scene)
            broken.append(~outputs.logits.isfinite().all())
            return outputs

        scores = scorer(predict, teacher.places)
        if any_rank(any(map(bool, broken))):
            raise UsageError(f"teachers.{name} gives logits that are not finite: check its weights, {config.weights}")
        value, images = scores[task.primary], scores["images"]
        chance = task.chance(labels if teacher.places is None else labels[:, teacher.places.tolist()])
        published = f", published {network.published_top1:.1f} on ImageNet-1K" if network.published_top1 else ""
        print_on_first(
            f"teachers.{name}, {config.name}: {shown} {value:.1f} on {images:g} validation images "
            f"(chance {chance:.1f}{published})"
        )
        if math.isnan(value):
            print_on_first(f"teachers.{name}: none of its classes is in these images; it is not judged")
            continue
        least = least_expected(chance) if config.expect is None else config.expect
        if value < least and (images >= _TOO_FEW or config.expect is not None):
            raise UsageError(
                f"teachers.{name} has {shown} {value:.1f} on {images:g} validation images, where at least {least:.1f} "
                "is expected: check that its classes are those of the data in the same order, its mean and std, and "
                f"its weights ({config.weights}). teachers.{name}.expect=0 lets it teach as it is"
            )


def least_expected(chance: float) -> float:
    """What a teacher must reach, percent: three times chance, or a third of the way from chance to all if that is less.

    The second is for a chance above a seventh.
    """
    return min(3 * chance, chance + (100 - chance) / 3)
