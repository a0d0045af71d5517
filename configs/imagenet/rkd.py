"""Relational distillation on ImageNet.

Park et al., CVPR 2019, arXiv 1904.05068; the weights are those of the CIFAR-100 page.

Command    python train_with_distillation.py --cfg configs/imagenet/rkd.py data.data_path=/data/lmdb \
               [teacher=resnet50 student=timm/mobilenetv1_100]
Hardware   any; the global batch of 256 is shared by the visible GPUs
Published  no score for this recipe
"""

from configs.imagenet._common import Scores, recipe
from knowledge_distiller import Term
from recipe import Recipe

published: Scores = {}


def cfg(teacher: str = "resnet34", student: str = "resnet18") -> Recipe:
    """The run of one pair."""
    distance, angle = Term("rkd_distance", 25.0), Term("rkd_angle", 50.0)
    return recipe("rkd", teacher, student, rkd_distance=distance, rkd_angle=angle)
