"""Class attention transfer on ImageNet.

Guo et al., CVPR 2023; the weight is that of the CIFAR-100 page.

Command    python train_with_distillation.py --cfg configs/imagenet/catkd.py data.data_path=/data/lmdb \
               [teacher=resnet50 student=timm/mobilenetv1_100]
Hardware   any; the global batch of 256 is shared by the visible GPUs
Published  the scores below, by public listings; not yet repeated with this code
"""

from configs.imagenet._common import Scores, by_pair, recipe
from knowledge_distiller import Term
from recipe import Recipe

published: Scores = by_pair(71.26, 72.24)


def cfg(teacher: str = "resnet34", student: str = "resnet18") -> Recipe:
    """The run of one pair."""
    return recipe("catkd", teacher, student, catkd=Term("catkd", 400.0))
