"""Normalised KD on ImageNet.

Yang et al., ICCV 2023, arXiv 2303.13005.

Command    python train_with_distillation.py --cfg configs/imagenet/nkd.py data.data_path=/data/lmdb \
               [teacher=resnet50 student=timm/mobilenetv1_100]
Hardware   any; the global batch of 256 is shared by the visible GPUs
Published  the scores below, by the authors' README; not yet repeated with this code
"""

from configs.imagenet._common import Scores, by_pair, recipe
from knowledge_distiller import Term
from recipe import Recipe

published: Scores = by_pair(71.96, 72.58)


def cfg(teacher: str = "resnet34", student: str = "resnet18") -> Recipe:
    """The run of one pair."""
    nkd = Term("nkd", options={"gamma": 1.5, "temperature": 1.0})
    return recipe("nkd", teacher, student, nkd=nkd)
