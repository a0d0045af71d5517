"""DIST on CIFAR-100.

Huang et al., NeurIPS 2022, arXiv 2205.10536.

Command    python train_with_distillation.py --cfg configs/cifar100/dist.py data.data_path=/data/cifar100 \
               [teacher=resnet32x4 student=resnet8x4]
Published  the scores below, by the authors' README; not yet repeated with this code
"""

from configs.cifar100._common import Scores, recipe
from knowledge_distiller import Term
from recipe import Recipe

published: Scores = {("resnet32x4", "resnet8x4"): 76.31}


def cfg(teacher: str = "resnet32x4", student: str = "resnet8x4") -> Recipe:
    """The run of one pair."""
    dist = Term("dist", options={"beta": 2.0, "gamma": 2.0, "temperature": 4.0})
    return recipe("dist", teacher, student, dist=dist)
