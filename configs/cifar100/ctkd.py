"""Curriculum temperature on CIFAR-100.

Li et al., AAAI 2023, arXiv 2211.16231, on KD.

Command    python train_with_distillation.py --cfg configs/cifar100/ctkd.py data.data_path=/data/cifar100 \
               [teacher=resnet32x4 student=resnet8x4]
Published  no score for this recipe
"""

from configs.cifar100._common import Scores, recipe
from knowledge_distiller import Term
from recipe import Recipe

published: Scores = {}


def cfg(teacher: str = "resnet32x4", student: str = "resnet8x4") -> Recipe:
    """The run of one pair."""
    return recipe("ctkd", teacher, student, cross_entropy=Term("cross_entropy", 0.1), ctkd=Term("ctkd", 0.9))
