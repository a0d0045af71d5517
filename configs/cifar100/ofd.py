"""Overhaul of feature distillation on CIFAR-100.

Heo et al., ICCV 2019, arXiv 1904.01866; the weight is MDistiller's.

Command    python train_with_distillation.py --cfg configs/cifar100/ofd.py data.data_path=/data/cifar100 \
               [teacher=resnet32x4 student=resnet8x4]
Published  no score for this recipe
"""

from configs.cifar100._common import Scores, recipe
from knowledge_distiller import Term
from recipe import Recipe

published: Scores = {}


def cfg(teacher: str = "resnet32x4", student: str = "resnet8x4") -> Recipe:
    """The run of one pair."""
    return recipe("ofd", teacher, student, ofd=Term("ofd", 1e-3))
