"""Multi-level logit distillation of standardised logits on ImageNet.

Sun et al., CVPR 2024, arXiv 2403.01427, on Jin et al., CVPR 2023; nine times the weight, as on CIFAR-100.

Command    python train_with_distillation.py --cfg configs/imagenet/mlkd_standardized.py data.data_path=/data/lmdb \
               [teacher=resnet50 student=timm/mobilenetv1_100]
Hardware   any; the global batch of 512 is shared by the visible GPUs
Published  the scores below, by public listings; not yet repeated with this code
"""

from configs.imagenet._common import Scores, by_pair
from configs.imagenet.mlkd import of_both_views
from knowledge_distiller import Term
from recipe import Recipe

published: Scores = by_pair(72.08, 73.22)


def cfg(teacher: str = "resnet34", student: str = "resnet18") -> Recipe:
    """The run of one pair."""
    levels = Term("mlkd", 9 * 0.5, options={"temperature": 2.0}, standardize=True)
    return of_both_views("mlkd_standardized", teacher, student, levels)
