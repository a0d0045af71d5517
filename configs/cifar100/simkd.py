"""A student with its teacher's classifier on CIFAR-100.

Chen et al., CVPR 2022, arXiv 2203.14001: the distance of the last maps alone.

Command    python train_with_distillation.py --cfg configs/cifar100/simkd.py data.data_path=/data/cifar100 \
               [teacher=resnet32x4 student=resnet8x4]
Published  the scores below, by the authors' README; not yet repeated with this code
"""

from dataclasses import replace

from configs.cifar100._common import Scores, recipe
from knowledge_distiller import Term
from models.heads import HeadConfig
from recipe import Recipe

published: Scores = {("resnet32x4", "resnet8x4"): 78.08}


def cfg(teacher: str = "resnet32x4", student: str = "resnet8x4") -> Recipe:
    """The run of one pair."""
    plain = recipe("simkd", teacher, student)
    return replace(plain, student=replace(plain.student, head=HeadConfig("reused")), terms={"simkd": Term("simkd")})
