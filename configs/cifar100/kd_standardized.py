"""Logit standardisation on CIFAR-100.

Sun et al., CVPR 2024, arXiv 2403.01427: KD on standardised logits.

Command    python train_with_distillation.py --cfg configs/cifar100/kd_standardized.py data.data_path=/data/cifar100 \
               [teacher=resnet32x4 student=resnet8x4]
Published  the scores below, by the authors' README; not yet repeated with this code
"""

from configs.cifar100._common import Scores, recipe
from knowledge_distiller import Term
from recipe import Recipe

published: Scores = {("resnet32x4", "resnet8x4"): 76.62}


def cfg(teacher: str = "resnet32x4", student: str = "resnet8x4") -> Recipe:
    """The run of one pair."""
    soft = Term("kd", 9 * 0.9, options={"temperature": 2.0}, standardize=True)
    return recipe("kd_standardized", teacher, student, cross_entropy=Term("cross_entropy", 0.1), kd=soft)
