"""Cross-view consistency on CIFAR-100.

Zhang et al., ACM Multimedia 2024, arXiv 2412.16493.

Command    python train_with_distillation.py --cfg configs/cifar100/crld.py data.data_path=/data/cifar100 \
               [teacher=resnet32x4 student=resnet8x4]
Published  no score for this recipe
"""

from dataclasses import replace

from configs.cifar100._common import Scores, recipe
from knowledge_distiller import Term
from recipe import Recipe

published: Scores = {}


def cfg(teacher: str = "resnet32x4", student: str = "resnet8x4") -> Recipe:
    """The run of one pair."""
    strong = Term("cross_entropy", strong=True)
    plain = recipe("crld", teacher, student, strong_cross_entropy=strong, crld=Term("crld"))
    return replace(plain, data=replace(plain.data, strong_view=True))
