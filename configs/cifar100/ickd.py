"""Inter-channel correlation on CIFAR-100.

Liu et al., ICCV 2021; the weight is the authors'.

Command    python train_with_distillation.py --cfg configs/cifar100/ickd.py data.data_path=/data/cifar100 \
               [teacher=resnet32x4 student=resnet8x4]
Published  no score for this recipe
"""

from configs.cifar100._common import Scores, recipe
from knowledge_distiller import Term
from recipe import Recipe

published: Scores = {}


def cfg(teacher: str = "resnet32x4", student: str = "resnet8x4") -> Recipe:
    """The run of one pair."""
    return recipe("ickd", teacher, student, ickd=Term("ickd", 2.5))
