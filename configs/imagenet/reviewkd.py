"""Knowledge review on ImageNet.

Chen et al., CVPR 2021, arXiv 2104.09044, on maps before their ReLUs.

Command    python train_with_distillation.py --cfg configs/imagenet/reviewkd.py data.data_path=/data/lmdb \
               [teacher=resnet50 student=timm/mobilenetv1_100]
Hardware   any; the global batch of 256 is shared by the visible GPUs
Published  the scores below, by the DKD paper's tables; not yet repeated with this code
"""

from configs.imagenet._common import Scores, by_pair, recipe
from knowledge_distiller import Term
from recipe import Recipe

published: Scores = by_pair(71.61, 72.56)


def cfg(teacher: str = "resnet34", student: str = "resnet18") -> Recipe:
    """The run of one pair."""
    weight = 1.0 if teacher == "resnet34" else 8.0
    return recipe("reviewkd", teacher, student, reviewkd=Term("reviewkd_pre", weight))
