"""Attention transfer on CIFAR-100.

Zagoruyko and Komodakis, ICLR 2017, arXiv 1612.03928.

Command    python train_with_distillation.py --cfg configs/cifar100/at.py data.data_path=/data/cifar100 \
               [teacher=resnet32x4 student=resnet8x4]
Published  the scores below, by RepDistiller's README; not yet repeated with this code
"""

from configs.cifar100._common import Scores, recipe
from knowledge_distiller import Term
from recipe import Recipe

published: Scores = {("resnet32x4", "resnet8x4"): 73.44, ("resnet50", "mobilenetv2"): 58.58}


def cfg(teacher: str = "resnet32x4", student: str = "resnet8x4") -> Recipe:
    """The run of one pair."""
    return recipe("at", teacher, student, at=Term("at", 1000.0))
