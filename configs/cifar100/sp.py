"""Similarity preserving on CIFAR-100.

Tung and Mori, ICCV 2019, arXiv 1907.09682.

Command    python train_with_distillation.py --cfg configs/cifar100/sp.py data.data_path=/data/cifar100 \
               [teacher=resnet32x4 student=resnet8x4]
Published  the scores below, by RepDistiller's README; not yet repeated with this code
"""

from configs.cifar100._common import Scores, recipe
from knowledge_distiller import Term
from recipe import Recipe

published: Scores = {("resnet32x4", "resnet8x4"): 72.94, ("resnet50", "mobilenetv2"): 68.08}


def cfg(teacher: str = "resnet32x4", student: str = "resnet8x4") -> Recipe:
    """The run of one pair."""
    return recipe("sp", teacher, student, sp=Term("sp", 3000.0))
