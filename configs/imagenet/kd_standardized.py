"""Logit standardisation on ImageNet.

Sun et al., CVPR 2024, arXiv 2403.01427: KD on standardised logits; nine times the weight of KD, as on CIFAR-100.

Command    python train_with_distillation.py --cfg configs/imagenet/kd_standardized.py data.data_path=/data/lmdb \
               [teacher=resnet50 student=timm/mobilenetv1_100]
Hardware   any; the global batch of 512 is shared by the visible GPUs
Published  the scores below, by torchdistill's table; not yet repeated with this code
"""

from configs.imagenet._common import PAIRS, Scores, recipe
from knowledge_distiller import Term
from recipe import Recipe

published: Scores = {PAIRS[0]: 71.42}


def cfg(teacher: str = "resnet34", student: str = "resnet18") -> Recipe:
    """The run of one pair."""
    soft = Term("kd", 9 * 0.5, options={"temperature": 2.0}, standardize=True)
    return recipe("kd_standardized", teacher, student, 512, cross_entropy=Term("cross_entropy", 0.5), kd=soft)
