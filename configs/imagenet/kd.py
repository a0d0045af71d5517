"""Knowledge distillation on ImageNet.

Hinton et al., 2015, arXiv 1503.02531; the weights are MDistiller's.

Command    python train_with_distillation.py --cfg configs/imagenet/kd.py data.data_path=/data/lmdb \
               [teacher=resnet50 student=timm/mobilenetv1_100]
Hardware   any; the global batch of 512 is shared by the visible GPUs
Published  the scores below, by MDistiller's README; not yet repeated with this code
"""

from configs.imagenet._common import Scores, by_pair, recipe
from knowledge_distiller import Term
from recipe import Recipe

published: Scores = by_pair(71.03, 70.50)


def cfg(teacher: str = "resnet34", student: str = "resnet18") -> Recipe:
    """The run of one pair."""
    hard, soft = Term("cross_entropy", 0.5), Term("kd", 0.5, options={"temperature": 1.0})
    return recipe("kd", teacher, student, 512, cross_entropy=hard, kd=soft)
