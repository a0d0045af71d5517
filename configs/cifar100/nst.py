"""Neuron selectivity transfer on CIFAR-100.

Huang and Wang, 2017, arXiv 1707.01219.

Command    python train_with_distillation.py --cfg configs/cifar100/nst.py data.data_path=/data/cifar100 \
               [teacher=resnet32x4 student=resnet8x4]
Published  the scores below, by RepDistiller's README; not yet repeated with this code
"""

from configs.cifar100._common import Scores, recipe
from knowledge_distiller import Term
from recipe import Recipe

published: Scores = {("resnet32x4", "resnet8x4"): 73.30, ("resnet50", "mobilenetv2"): 64.96}


def cfg(teacher: str = "resnet32x4", student: str = "resnet8x4") -> Recipe:
    """The run of one pair."""
    return recipe("nst", teacher, student, nst=Term("nst", 50.0))
