"""Simple recipe distillation on CIFAR-100.

Miles and Mikolajczyk, AAAI 2024, arXiv 2303.11098; the weight is that of the ImageNet page.

Command    python train_with_distillation.py --cfg configs/cifar100/srd.py data.data_path=/data/cifar100 \
               [teacher=resnet32x4 student=resnet8x4]
Published  no score for this recipe
"""

from configs.cifar100._common import Scores, recipe
from knowledge_distiller import Term
from recipe import Recipe

published: Scores = {}


def cfg(teacher: str = "resnet32x4", student: str = "resnet8x4") -> Recipe:
    """The run of one pair."""
    return recipe("srd", teacher, student, srd=Term("srd"))
