"""Normalised KD on CIFAR-100.

Yang et al., ICCV 2023, arXiv 2303.13005.

Command    python train_with_distillation.py --cfg configs/cifar100/nkd.py data.data_path=/data/cifar100 \
               [teacher=resnet32x4 student=resnet8x4]
Published  no score for this recipe
"""

from configs.cifar100._common import Scores, recipe
from knowledge_distiller import Term
from recipe import Recipe

published: Scores = {}


def cfg(teacher: str = "resnet32x4", student: str = "resnet8x4") -> Recipe:
    """The run of one pair."""
    nkd = Term("nkd", options={"gamma": 1.5, "temperature": 1.0})
    return recipe("nkd", teacher, student, nkd=nkd)
