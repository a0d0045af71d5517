"""Knowledge review on CIFAR-100.

Chen et al., CVPR 2021, arXiv 2104.09044; weight and growth are MDistiller's.

Command    python train_with_distillation.py --cfg configs/cifar100/reviewkd.py data.data_path=/data/cifar100 \
               [teacher=resnet32x4 student=resnet8x4]
Published  no score for this recipe
"""

from configs.cifar100._common import WARMUP, Scores, recipe
from knowledge_distiller import Term
from recipe import Recipe

published: Scores = {}


def cfg(teacher: str = "resnet32x4", student: str = "resnet8x4") -> Recipe:
    """The run of one pair."""
    return recipe("reviewkd", teacher, student, reviewkd=Term("reviewkd", 5.0, ramp=WARMUP))
