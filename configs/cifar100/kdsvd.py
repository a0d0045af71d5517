"""Distillation by singular value decomposition on CIFAR-100.

Lee et al., ECCV 2018, arXiv 1807.06819; the weight is MDistiller's.

Command    python train_with_distillation.py --cfg configs/cifar100/kdsvd.py data.data_path=/data/cifar100 \
               [teacher=resnet32x4 student=resnet8x4]
Published  no score for this recipe
"""

from configs.cifar100._common import Scores, recipe
from knowledge_distiller import Term
from recipe import Recipe

published: Scores = {}


def cfg(teacher: str = "resnet32x4", student: str = "resnet8x4") -> Recipe:
    """The run of one pair."""
    return recipe("kdsvd", teacher, student, kdsvd=Term("kdsvd", 1.0))
