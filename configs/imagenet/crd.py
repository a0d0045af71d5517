"""Contrastive representation distillation on ImageNet.

Tian et al., ICLR 2020, arXiv 1910.10699.

Command    python train_with_distillation.py --cfg configs/imagenet/crd.py data.data_path=/data/lmdb \
               [teacher=resnet50 student=timm/mobilenetv1_100]
Hardware   any; the global batch of 256 is shared by the visible GPUs
Published  the scores below, by the DKD paper's tables; not yet repeated with this code
"""

from configs.imagenet._common import Scores, by_pair, recipe
from knowledge_distiller import Term
from recipe import Recipe

published: Scores = by_pair(71.17, 71.37)


def cfg(teacher: str = "resnet34", student: str = "resnet18") -> Recipe:
    """The run of one pair."""
    return recipe("crd", teacher, student, crd=Term("crd", 0.8))
