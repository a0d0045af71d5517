"""Scale decoupled distillation on CIFAR-100.

Wei et al., CVPR 2024, arXiv 2403.13512, on KD.

Command    python train_with_distillation.py --cfg configs/cifar100/sdd.py data.data_path=/data/cifar100 \
               [teacher=resnet32x4 student=resnet8x4]
Published  no score for this recipe
"""

from configs.cifar100._common import WARMUP, Scores, recipe
from knowledge_distiller import Term
from recipe import Recipe

published: Scores = {}


def cfg(teacher: str = "resnet32x4", student: str = "resnet8x4") -> Recipe:
    """The run of one pair."""
    sdd = Term("sdd", options={"scales": 3, "temperature": 4.0}, ramp=WARMUP)
    return recipe("sdd", teacher, student, sdd=sdd)
