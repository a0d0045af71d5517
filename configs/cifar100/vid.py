"""Variational information distillation on CIFAR-100.

Ahn et al., CVPR 2019, arXiv 1904.05835.

Command    python train_with_distillation.py --cfg configs/cifar100/vid.py data.data_path=/data/cifar100 \
               [teacher=resnet32x4 student=resnet8x4]
Published  the scores below, by RepDistiller's README; not yet repeated with this code
"""

from configs.cifar100._common import Scores, recipe
from knowledge_distiller import Term
from recipe import Recipe

published: Scores = {("resnet32x4", "resnet8x4"): 73.09, ("resnet50", "mobilenetv2"): 67.57}


def cfg(teacher: str = "resnet32x4", student: str = "resnet8x4") -> Recipe:
    """The run of one pair."""
    return recipe("vid", teacher, student, vid=Term("vid", 1.0))
