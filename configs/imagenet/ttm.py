"""Weighted transformed teacher matching on ImageNet.

Zheng and Yang, ICLR 2024, arXiv 2402.11148; the weight and the temperature are those of wttm_crd on
CIFAR-100.

Command    python train_with_distillation.py --cfg configs/imagenet/ttm.py data.data_path=/data/lmdb \
               [teacher=resnet50 student=timm/mobilenetv1_100]
Hardware   any; the global batch of 256 is shared by the visible GPUs
Published  the scores below, by the authors' README, for weights that may be others; not yet repeated with this code
"""

from configs.imagenet._common import Scores, by_pair, recipe
from knowledge_distiller import Term
from recipe import Recipe

published: Scores = by_pair(72.19, 73.09)


def cfg(teacher: str = "resnet34", student: str = "resnet18") -> Recipe:
    """The run of one pair."""
    return recipe("ttm", teacher, student, ttm=Term("ttm", 4.0, options={"temperature": 5.0}))
