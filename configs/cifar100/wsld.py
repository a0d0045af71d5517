"""Weighted soft labels on CIFAR-100.

Zhou et al., ICLR 2021, arXiv 2102.00650; temperature and weight are those of the port in cls_KD.

Command    python train_with_distillation.py --cfg configs/cifar100/wsld.py data.data_path=/data/cifar100 \
               [teacher=resnet32x4 student=resnet8x4]
Published  no score for this recipe
"""

from configs.cifar100._common import Scores, recipe
from knowledge_distiller import Term
from recipe import Recipe

published: Scores = {}


def cfg(teacher: str = "resnet32x4", student: str = "resnet8x4") -> Recipe:
    """The run of one pair."""
    wsld = Term("wsld", 2.25, options={"temperature": 4.0})
    return recipe("wsld", teacher, student, wsld=wsld)
