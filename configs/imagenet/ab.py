"""Activation boundaries on ImageNet.

Heo et al., AAAI 2019, arXiv 1811.03233: ten epochs of boundaries, then cross-entropy alone. The weight is a tenth of
the CIFAR-100 page's, as for OFD: both are sums over channels and pixels.

Command    python train_with_distillation.py --cfg configs/imagenet/ab.py data.data_path=/data/lmdb \
               [teacher=resnet50 student=timm/mobilenetv1_100]
Hardware   any; the global batch of 256 is shared by the visible GPUs
Published  no score for this recipe
"""

from dataclasses import replace

from configs.imagenet._common import Scores, recipe
from knowledge_distiller import Term
from recipe import Recipe
from training.stages import Stage

published: Scores = {}


def cfg(teacher: str = "resnet34", student: str = "resnet18") -> Recipe:
    """The run of one pair."""
    plain = recipe("ab", teacher, student)
    first = Stage(10, {"ab": Term("ab", 0.0003)}, replace(plain.optim, milestones=()))
    return replace(plain, first={"boundaries": first})
