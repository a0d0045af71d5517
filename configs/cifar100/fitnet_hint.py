"""FitNets in two stages on CIFAR-100.

Romero et al., ICLR 2015, arXiv 1412.6550: hints train the layers up to the hint, then KD trains all of them.

Command    python train_with_distillation.py --cfg configs/cifar100/fitnet_hint.py data.data_path=/data/cifar100 \
               [teacher=resnet32x4 student=resnet8x4]
Published  no score for this recipe
"""

from dataclasses import replace

from configs.cifar100._common import Scores, recipe
from knowledge_distiller import Term
from recipe import Recipe
from training.stages import Stage

published: Scores = {}


def cfg(teacher: str = "resnet32x4", student: str = "resnet8x4") -> Recipe:
    """The run of one pair."""
    soft = Term("kd", 0.9, options={"temperature": 4.0})
    plain = recipe("fitnet_hint", teacher, student, cross_entropy=Term("cross_entropy", 0.1), kd=soft)
    hint = Stage(30, {"hint": Term("fitnet", options={"hint": 2})}, replace(plain.optim, milestones=()))
    return replace(plain, first={"hint": hint})
