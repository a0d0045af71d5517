"""Multi-level logit distillation of standardised logits on CIFAR-100.

Sun et al., CVPR 2024, arXiv 2403.01427, on Jin et al., CVPR 2023, for both views as the paper of the latter says.

Command    python train_with_distillation.py --cfg configs/cifar100/mlkd_standardized.py data.data_path=/data/cifar100 \
               [teacher=resnet32x4 student=resnet8x4]
Published  no score for this recipe
"""

from configs.cifar100._common import Scores
from configs.cifar100.mlkd import all_levels, of_both_views
from recipe import Recipe

published: Scores = {}


def cfg(teacher: str = "resnet32x4", student: str = "resnet8x4") -> Recipe:
    """The run of one pair."""
    return of_both_views("mlkd_standardized", teacher, student, all_levels(9 * 0.9, 2.0, standardize=True))
