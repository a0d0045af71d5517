"""Scale decoupled distillation on ImageNet.

Wei et al., CVPR 2024, arXiv 2403.13512, on KD: the temperature is the authors', the scales are those of the CIFAR-100
page.

Command    python train_with_distillation.py --cfg configs/imagenet/sdd.py data.data_path=/data/lmdb \
               [teacher=resnet50 student=timm/mobilenetv1_100]
Hardware   any; the global batch of 512 is shared by the visible GPUs
Published  the score below, by the authors; not yet repeated with this code
"""

from configs.imagenet._common import PAIRS, Scores, recipe
from knowledge_distiller import Term
from recipe import Recipe

published: Scores = {PAIRS[1]: 72.24}


def cfg(teacher: str = "resnet34", student: str = "resnet18") -> Recipe:
    """The run of one pair."""
    sdd = Term("sdd", options={"scales": 3, "temperature": 1.0})
    return recipe("sdd", teacher, student, 512, sdd=sdd)
