"""Attention transfer on ImageNet.

Zagoruyko and Komodakis, ICLR 2017, arXiv 1612.03928; the weight is MDistiller's.

Command    python train_with_distillation.py --cfg configs/imagenet/at.py data.data_path=/data/lmdb \
               [teacher=resnet50 student=timm/mobilenetv1_100]
Hardware   any; the global batch of 512 is shared by the visible GPUs
Published  the scores below, by the DKD paper's tables; not yet repeated with this code
"""

from configs.imagenet._common import Scores, by_pair, recipe
from knowledge_distiller import Term
from recipe import Recipe

published: Scores = by_pair(70.69, 69.56)


def cfg(teacher: str = "resnet34", student: str = "resnet18") -> Recipe:
    """The run of one pair."""
    return recipe("at", teacher, student, 512, at=Term("at", 1000.0))
