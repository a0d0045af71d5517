"""Flow of the solution procedure on ImageNet.

Yim et al., CVPR 2017: ten epochs of flows, then cross-entropy alone.

Command    python train_with_distillation.py --cfg configs/imagenet/fsp.py data.data_path=/data/lmdb \
               [teacher=resnet50 student=timm/mobilenetv1_100]
Hardware   any; the global batch of 256 is shared by the visible GPUs
Published  no score for this recipe
"""

from dataclasses import replace

from configs.imagenet._common import Scores, recipe
from knowledge_distiller import Term
from recipe import Recipe
from training.stages import Stage

published: Scores = {}


def cfg(teacher: str = "resnet34", student: str = "resnet18") -> Recipe:
    """The run of one pair."""
    plain = recipe("fsp", teacher, student)
    first = Stage(10, {"fsp": Term("fsp")}, replace(plain.optim, milestones=()))
    return replace(plain, first={"flows": first})
