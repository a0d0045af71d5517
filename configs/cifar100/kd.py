"""Knowledge distillation on CIFAR-100.

Hinton et al., 2015, arXiv 1503.02531; the weights are MDistiller's.

Command    python train_with_distillation.py --cfg configs/cifar100/kd.py data.data_path=/data/cifar100 \
               [teacher=resnet32x4 student=resnet8x4]
Published  the scores below, by MDistiller's README; not yet repeated with this code
"""

from configs.cifar100._common import Scores, by_pair, recipe
from knowledge_distiller import Term
from recipe import Recipe

published: Scores = by_pair(70.66, 73.08, 73.33, 74.92, 73.54, 72.98, 74.07, 74.83, 67.37, 67.35, 74.45)


def cfg(teacher: str = "resnet32x4", student: str = "resnet8x4") -> Recipe:
    """The run of one pair."""
    hard, soft = Term("cross_entropy", 0.1), Term("kd", 0.9, options={"temperature": 4.0})
    return recipe("kd", teacher, student, cross_entropy=hard, kd=soft)
