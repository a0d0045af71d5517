"""Contrastive representation distillation with KD on ImageNet.

Tian et al., ICLR 2020, arXiv 1910.10699; the temperature of KD is that of its ImageNet page.

Command    python train_with_distillation.py --cfg configs/imagenet/crd_kd.py data.data_path=/data/lmdb \
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
    kd = Term("kd", options={"temperature": 1.0})
    return recipe("crd_kd", teacher, student, kd=kd, crd=Term("crd", 0.8))
