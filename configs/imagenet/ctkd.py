"""Curriculum temperature on ImageNet.

Li et al., AAAI 2023, arXiv 2211.16231, on KD, with the weights of the page for KD.

Command    python train_with_distillation.py --cfg configs/imagenet/ctkd.py data.data_path=/data/lmdb \
               [teacher=resnet50 student=timm/mobilenetv1_100]
Hardware   any; the global batch of 512 is shared by the visible GPUs
Published  the scores below, by the authors' README; not yet repeated with this code
"""

from configs.imagenet._common import PAIRS, Scores, recipe
from knowledge_distiller import Term
from recipe import Recipe

published: Scores = {PAIRS[0]: 71.32}


def cfg(teacher: str = "resnet34", student: str = "resnet18") -> Recipe:
    """The run of one pair."""
    hard, soft = Term("cross_entropy", 0.5), Term("ctkd", 0.5)
    return recipe("ctkd", teacher, student, 512, cross_entropy=hard, ctkd=soft)
