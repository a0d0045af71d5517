"""DIST on ImageNet.

Huang et al., NeurIPS 2022, arXiv 2205.10536.

Command    python train_with_distillation.py --cfg configs/imagenet/dist.py data.data_path=/data/lmdb \
               [teacher=resnet50 student=timm/mobilenetv1_100]
Hardware   any; the global batch of 256 is shared by the visible GPUs
Published  the scores below, by the authors' README; not yet repeated with this code
"""

from configs.imagenet._common import Scores, by_pair, recipe
from knowledge_distiller import Term
from recipe import Recipe

published: Scores = by_pair(72.07, 73.24)


def cfg(teacher: str = "resnet34", student: str = "resnet18") -> Recipe:
    """The run of one pair."""
    dist = Term("dist", options={"beta": 2.0, "gamma": 2.0, "temperature": 1.0})
    return recipe("dist", teacher, student, dist=dist)
