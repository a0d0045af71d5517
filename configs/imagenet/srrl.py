"""Softmax regression on ImageNet.

Yang et al., ICLR 2021, Knowledge distillation via softmax regression representation learning.

Command    python train_with_distillation.py --cfg configs/imagenet/srrl.py data.data_path=/data/lmdb \
               [teacher=resnet50 student=timm/mobilenetv1_100]
Hardware   any; the global batch of 256 is shared by the visible GPUs
Published  the scores below, by the table of TTM's README; not yet repeated with this code
"""

from configs.imagenet._common import Scores, by_pair, recipe
from knowledge_distiller import Term
from recipe import Recipe

published: Scores = by_pair(71.73, 72.49)


def cfg(teacher: str = "resnet34", student: str = "resnet18") -> Recipe:
    """The run of one pair."""
    return recipe("srrl", teacher, student, srrl=Term("srrl"))
