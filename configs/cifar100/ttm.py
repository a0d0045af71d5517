"""Transformed teacher matching on CIFAR-100.

Zheng and Yang, ICLR 2024, arXiv 2402.11148; the authors give this weight and temperature for VGG13 and VGG8.

Command    python train_with_distillation.py --cfg configs/cifar100/ttm.py data.data_path=/data/cifar100 \
               [teacher=resnet32x4 student=resnet8x4]
Published  the scores below, by the authors' README; not yet repeated with this code
"""

from configs.cifar100._common import Scores, by_pair, recipe
from knowledge_distiller import Term
from recipe import Recipe

published: Scores = by_pair(71.83, 73.97, 76.17, 76.23, 74.32, 74.33, 74.18, 75.39, 68.98, 69.24, 76.57)


def cfg(teacher: str = "resnet32x4", student: str = "resnet8x4") -> Recipe:
    """The run of one pair."""
    return recipe("ttm", teacher, student, ttm=Term("ttm", 45.0, options={"temperature": 10.0, "weighted": False}))
