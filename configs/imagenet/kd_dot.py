"""Distillation-oriented training on ImageNet.

Zhao et al., ICCV 2023, on KD.

Command    python train_with_distillation.py --cfg configs/imagenet/kd_dot.py data.data_path=/data/lmdb \
               [teacher=resnet50 student=timm/mobilenetv1_100]
Hardware   any; the global batch of 512 is shared by the visible GPUs
Published  the scores below, by MDistiller's README; not yet repeated with this code
"""

from dataclasses import replace

from configs.imagenet._common import Scores, by_pair, recipe
from knowledge_distiller import Term
from recipe import Recipe

published: Scores = by_pair(71.72, 73.09)


def cfg(teacher: str = "resnet34", student: str = "resnet18") -> Recipe:
    """The run of one pair."""
    hard, soft = Term("cross_entropy", 0.5), Term("kd", 0.5, options={"temperature": 1.0})
    plain = recipe("kd_dot", teacher, student, 512, cross_entropy=hard, kd=soft)
    return replace(plain, optim=replace(plain.optim, optimizer="dot", delta=0.09))
