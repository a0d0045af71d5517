"""Neuron selectivity transfer on ImageNet.

Huang and Wang, 2017, arXiv 1707.01219; the weight is that of the CIFAR-100 page.

Command    python train_with_distillation.py --cfg configs/imagenet/nst.py data.data_path=/data/lmdb \
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
    return recipe("nst", teacher, student, nst=Term("nst", 50.0))
