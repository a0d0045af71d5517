"""Overhaul of feature distillation on ImageNet.

Heo et al., ICCV 2019, arXiv 1904.01866; the weight is MDistiller's.

Command    python train_with_distillation.py --cfg configs/imagenet/ofd.py data.data_path=/data/lmdb \
               [teacher=resnet50 student=timm/mobilenetv1_100]
Hardware   any; the global batch of 128 is shared by the visible GPUs
Published  the scores below, by the DKD paper's tables; not yet repeated with this code
"""

from configs.imagenet._common import Scores, by_pair, recipe
from knowledge_distiller import Term
from recipe import Recipe

published: Scores = by_pair(70.81, 71.25)


def cfg(teacher: str = "resnet34", student: str = "resnet18") -> Recipe:
    """The run of one pair."""
    return recipe("ofd", teacher, student, 128, ofd=Term("ofd", 1e-4))
