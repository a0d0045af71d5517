"""Whether teachers know the data: each is evaluated on some validation images before the first step."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from models.outputs import Outputs, Scene
from tasks import Task
from teachers import Live, TeacherConfig
from training.scores import Scorer
from training.stored import Stored
from utils.distributed import any_rank, gather, print_on_first
from utils.errors import UsageError

IMAGES = 512  # at most, for a teacher
_TOO_FEW = 10  # images to judge by


def check_teachers(
    teachers: nn.ModuleDict, configs: Mapping[str, TeacherConfig], task: Task, labels: np.ndarray, scorer: Scorer
) -> None:
    """Print the score of every teacher beside chance, and refuse those that could as well guess.

    One whose normalisation, order of classes or weights are wrong trains a student without any other sign of it. Of one
    that gives features alone, and of all where the task scores features, no score says so: they must be finite, and
    differ between images.

    Args:
        teachers: by name, evaluated in eval mode.
        configs: theirs.
        task: whose primary score decides.
        labels: of the validation samples, as `Samples` has them.
        scorer: on a part of the validation images, over all ranks.

    Raises:
        UsageError: a teacher is below its `expect`, or gives logits or features that are not finite, or are always the
            same.
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
        if task.reads or not network.num_classes:
            _check_features(name, config, teacher, scorer)
            continue
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


def _check_features(name: str, config: TeacherConfig, teacher: Live, scorer: Scorer) -> None:
    """Print that a teacher is not scored.

    Raises:
        UsageError: its features, or logits, are not finite, or the same for all images.
    """
    finite, varied = [True], [False]
    first: dict[tuple[str, torch.Size], Tensor] = {}  # of each output and shape, [1, ...] for the first image

    def look(images: Tensor, scene: Scene) -> None:
        given = teacher.predict(images, scene)
        outputs = {**given.features, "logits": given.logits} if given.logits.numel() else given.features
        for output, value in outputs.items():
            finite[0] &= bool(value.isfinite().all())
            start = first.setdefault((output, value.shape[1:]), value[:1].clone())
            varied[0] |= bool((value != start).any())

    counts = gather(scorer.look(look))
    if any_rank(not finite[0]):
        raise UsageError(f"teachers.{name} gives features that are not finite: check its weights, {config.weights}")
    if not any_rank(varied[0]) and max(counts) > 1:
        raise UsageError(f"teachers.{name} gives the same for all images: check its weights, {config.weights}")
    print_on_first(
        f"teachers.{name}, {config.name}: gives features of {sum(counts)} validation images; they are not scored"
    )


def least_expected(chance: float) -> float:
    """What a teacher must reach, percent: three times chance, or a third of the way from chance to all if that is less.

    The second is for a chance above a seventh.
    """
    return min(3 * chance, chance + (100 - chance) / 3)
