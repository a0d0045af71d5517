"""Contrastive representation distillation with KD on CIFAR-100.

Tian et al., ICLR 2020, arXiv 1910.10699.

Command    python train_with_distillation.py --cfg configs/cifar100/crd_kd.py data.data_path=/data/cifar100 \
               [teacher=resnet32x4 student=resnet8x4]
Published  no score for this recipe
"""

from configs.cifar100._common import Scores, recipe
from knowledge_distiller import Term
from recipe import Recipe

published: Scores = {}


def cfg(teacher: str = "resnet32x4", student: str = "resnet8x4") -> Recipe:
    """The run of one pair."""
    kd = Term("kd", options={"temperature": 4.0})
    return recipe("crd_kd", teacher, student, kd=kd, crd=Term("crd", 0.8))
