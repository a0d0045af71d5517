"""Activation boundaries on CIFAR-100.

Heo et al., AAAI 2019, arXiv 1811.03233: 30 epochs of boundaries, then cross-entropy alone, with the weight of
RepDistiller.

Command    python train_with_distillation.py --cfg configs/cifar100/ab.py data.data_path=/data/cifar100 \
               [teacher=resnet32x4 student=resnet8x4]
Published  the scores below, by RepDistiller's README; not yet repeated with this code
"""

from dataclasses import replace

from configs.cifar100._common import Scores, recipe
from knowledge_distiller import Term
from recipe import Recipe
from training.stages import Stage

published: Scores = {("resnet32x4", "resnet8x4"): 73.17}


def cfg(teacher: str = "resnet32x4", student: str = "resnet8x4") -> Recipe:
    """The run of one pair."""
    plain = recipe("ab", teacher, student)
    first = Stage(30, {"ab": Term("ab", 0.003)}, replace(plain.optim, milestones=()))
    return replace(plain, first={"boundaries": first})
