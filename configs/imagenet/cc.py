"""Correlation congruence as RepDistiller has it on ImageNet.

After Peng et al., ICCV 2019, arXiv 1904.01802, whose own objective is `cc`; the weight is that of the CIFAR-100 page.

Command    python train_with_distillation.py --cfg configs/imagenet/cc.py data.data_path=/data/lmdb \
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
    return recipe("cc", teacher, student, cc=Term("consecutive_correlation", 0.02))
