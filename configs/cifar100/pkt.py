"""Probabilistic knowledge transfer on CIFAR-100.

Passalis and Tefas, ECCV 2018, arXiv 1803.10837.

Command    python train_with_distillation.py --cfg configs/cifar100/pkt.py data.data_path=/data/cifar100 \
               [teacher=resnet32x4 student=resnet8x4]
Published  the scores below, by RepDistiller's README; not yet repeated with this code
"""

from configs.cifar100._common import Scores, recipe
from knowledge_distiller import Term
from recipe import Recipe

published: Scores = {("resnet32x4", "resnet8x4"): 73.64, ("resnet50", "mobilenetv2"): 66.52}


def cfg(teacher: str = "resnet32x4", student: str = "resnet8x4") -> Recipe:
    """The run of one pair."""
    return recipe("pkt", teacher, student, pkt=Term("pkt", 30000.0))
