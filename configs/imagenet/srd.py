"""Simple recipe distillation on ImageNet.

Miles and Mikolajczyk, AAAI 2024, arXiv 2303.11098.

Command    python train_with_distillation.py --cfg configs/imagenet/srd.py data.data_path=/data/lmdb \
               [teacher=resnet50 student=timm/mobilenetv1_100]
Hardware   any; the global batch of 256 is shared by the visible GPUs
Published  the scores below, by public listings; not yet repeated with this code
"""

from configs.imagenet._common import PAIRS, Scores, recipe
from knowledge_distiller import Term
from recipe import Recipe

published: Scores = {PAIRS[0]: 71.63}


def cfg(teacher: str = "resnet34", student: str = "resnet18") -> Recipe:
    """The run of one pair."""
    return recipe("srd", teacher, student, srd=Term("srd"))
