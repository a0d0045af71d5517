"""Contrastive representation distillation on CIFAR-100.

Tian et al., ICLR 2020, arXiv 1910.10699.

Command    python train_with_distillation.py --cfg configs/cifar100/crd.py data.data_path=/data/cifar100 \
               [teacher=resnet32x4 student=resnet8x4]
Published  the scores below, by RepDistiller's README; not yet repeated with this code
"""

from configs.cifar100._common import Scores, recipe
from knowledge_distiller import Term
from recipe import Recipe

published: Scores = {("resnet32x4", "resnet8x4"): 75.51, ("resnet50", "mobilenetv2"): 69.11}


def cfg(teacher: str = "resnet32x4", student: str = "resnet8x4") -> Recipe:
    """The run of one pair."""
    return recipe("crd", teacher, student, crd=Term("crd", 0.8))
