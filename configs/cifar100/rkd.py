"""Relational distillation on CIFAR-100.

Park et al., CVPR 2019, arXiv 1904.05068.

Command    python train_with_distillation.py --cfg configs/cifar100/rkd.py data.data_path=/data/cifar100 \
               [teacher=resnet32x4 student=resnet8x4]
Published  the scores below, by RepDistiller's README; not yet repeated with this code
"""

from configs.cifar100._common import Scores, recipe
from knowledge_distiller import Term
from recipe import Recipe

published: Scores = {("resnet32x4", "resnet8x4"): 71.90, ("resnet50", "mobilenetv2"): 64.43}


def cfg(teacher: str = "resnet32x4", student: str = "resnet8x4") -> Recipe:
    """The run of one pair."""
    distance, angle = Term("rkd_distance", 25.0), Term("rkd_angle", 50.0)
    return recipe("rkd", teacher, student, rkd_distance=distance, rkd_angle=angle)
