"""A student with its teacher's classifier on ImageNet.

Chen et al., CVPR 2022, arXiv 2203.14001: the distance of the last maps alone, for 120 epochs.

Command    python train_with_distillation.py --cfg configs/imagenet/simkd.py data.data_path=/data/lmdb \
               [teacher=resnet50 student=timm/mobilenetv1_100]
Hardware   any; the global batch of 256 is shared by the visible GPUs
Published  no score for this recipe
"""

from dataclasses import replace

from configs.imagenet._common import Scores, recipe
from knowledge_distiller import Term
from models.heads import HeadConfig
from recipe import Recipe

published: Scores = {}


def cfg(teacher: str = "resnet34", student: str = "resnet18") -> Recipe:
    """The run of one pair."""
    plain = recipe("simkd", teacher, student)
    return replace(
        plain,
        student=replace(plain.student, head=HeadConfig("reused")),
        terms={"simkd": Term("simkd")},
        train_params=replace(plain.train_params, epochs=120),
    )
