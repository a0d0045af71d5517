"""Inter-channel correlation on ImageNet.

Liu et al., ICCV 2021, arXiv 2202.03680; the weight is that of the CIFAR-100 page.

Command    python train_with_distillation.py --cfg configs/imagenet/ickd.py data.data_path=/data/lmdb \
               [teacher=resnet50 student=timm/mobilenetv1_100]
Hardware   any; the global batch of 256 is shared by the visible GPUs
Published  the score below, by the paper, for a weight that may be another; not yet repeated with this code
"""

from configs.imagenet._common import PAIRS, Scores, recipe
from knowledge_distiller import Term
from recipe import Recipe

published: Scores = {PAIRS[0]: 72.19}


def cfg(teacher: str = "resnet34", student: str = "resnet18") -> Recipe:
    """The run of one pair."""
    return recipe("ickd", teacher, student, ickd=Term("ickd", 2.5))
