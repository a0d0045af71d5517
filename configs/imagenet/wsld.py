"""Weighted soft labels on ImageNet.

Zhou et al., ICLR 2021, arXiv 2102.00650, in the recipe of the other pages; imagenet_train_cfg.py has its own.

Command    python train_with_distillation.py --cfg configs/imagenet/wsld.py data.data_path=/data/lmdb \
               [teacher=resnet50 student=timm/mobilenetv1_100]
Hardware   any; the global batch of 256 is shared by the visible GPUs
Published  the scores below, by the paper, for its own recipe; not yet repeated with this code
"""

from configs.imagenet._common import Scores, by_pair, recipe
from knowledge_distiller import Term
from recipe import Recipe

published: Scores = by_pair(72.04, 71.52)


def cfg(teacher: str = "resnet34", student: str = "resnet18") -> Recipe:
    """The run of one pair."""
    return recipe("wsld", teacher, student, wsld=Term("wsld", 2.5, options={"temperature": 2.0}))
