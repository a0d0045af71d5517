"""Correlation congruence as RepDistiller has it on CIFAR-100.

After Peng et al., ICCV 2019, arXiv 1904.01802, whose own objective is `cc`.

Command    python train_with_distillation.py --cfg configs/cifar100/cc.py data.data_path=/data/cifar100 \
               [teacher=resnet32x4 student=resnet8x4]
Published  the scores below, by RepDistiller's README; not yet repeated with this code
"""

from configs.cifar100._common import Scores, recipe
from knowledge_distiller import Term
from recipe import Recipe

published: Scores = {("resnet32x4", "resnet8x4"): 72.97}


def cfg(teacher: str = "resnet32x4", student: str = "resnet8x4") -> Recipe:
    """The run of one pair."""
    return recipe("cc", teacher, student, cc=Term("consecutive_correlation", 0.02))
