"""Weighted transformed teacher matching with CRD on CIFAR-100.

Zheng and Yang, ICLR 2024, arXiv 2402.11148; the authors give these weights for VGG13 and VGG8.

Command    python train_with_distillation.py --cfg configs/cifar100/wttm_crd.py data.data_path=/data/cifar100 \
               [teacher=resnet32x4 student=resnet8x4]
Published  the scores below, by the authors' README; not yet repeated with this code
"""

from configs.cifar100._common import Scores, by_pair, recipe
from knowledge_distiller import Term
from recipe import Recipe

published: Scores = by_pair(72.20, 74.52, 76.65, 76.61, 74.94, 74.71, 75.82, 76.86, 70.30, 70.84, 77.04)


def cfg(teacher: str = "resnet32x4", student: str = "resnet8x4") -> Recipe:
    """The run of one pair."""
    wttm = Term("ttm", 4.0, options={"temperature": 5.0})
    return recipe("wttm_crd", teacher, student, ttm=wttm, crd=Term("crd", 0.8))
