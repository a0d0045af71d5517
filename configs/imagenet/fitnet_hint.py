"""FitNets in two stages on ImageNet.

Romero et al., ICLR 2015, arXiv 1412.6550: hints train the layers up to the hint, then KD trains all of them. Ten epochs
of hints, and the weights of KD's ImageNet page.

Command    python train_with_distillation.py --cfg configs/imagenet/fitnet_hint.py data.data_path=/data/lmdb \
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
    hard, soft = Term("cross_entropy", 0.5), Term("kd", 0.5, options={"temperature": 1.0})
    plain = recipe("fitnet_hint", teacher, student, cross_entropy=hard, kd=soft)
    hint = Stage(10, {"hint": Term("fitnet", options={"hint": 2})}, replace(plain.optim, milestones=()))
    return replace(plain, first={"hint": hint})
