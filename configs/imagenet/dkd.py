"""Decoupled knowledge distillation on ImageNet.

Zhao et al., CVPR 2022, arXiv 2203.08679.

Command    python train_with_distillation.py --cfg configs/imagenet/dkd.py data.data_path=/data/lmdb \
               [teacher=resnet50 student=timm/mobilenetv1_100]
Hardware   any; the global batch of 512 is shared by the visible GPUs
Published  the scores below, by MDistiller's README; not yet repeated with this code
"""

from configs.imagenet._common import Scores, by_pair, recipe
from knowledge_distiller import Term
from recipe import Recipe

published: Scores = by_pair(71.70, 72.05)


def cfg(teacher: str = "resnet34", student: str = "resnet18") -> Recipe:
    """The run of one pair."""
    beta = 0.5 if teacher == "resnet34" else 2.0
    dkd = Term("dkd", options={"alpha": 1.0, "beta": beta, "temperature": 1.0})
    return recipe("dkd", teacher, student, 512, dkd=dkd)
