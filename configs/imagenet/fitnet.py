"""FitNets on ImageNet.

Romero et al., ICLR 2015, arXiv 1412.6550, in a single run as RepDistiller and MDistiller have it; the weight is
that of the CIFAR-100 page.

Command    python train_with_distillation.py --cfg configs/imagenet/fitnet.py data.data_path=/data/lmdb \
               [teacher=resnet50 student=timm/mobilenetv1_100]
Hardware   any; the global batch of 256 is shared by the visible GPUs
Published  no score for this recipe
"""

from configs.imagenet._common import Scores, recipe
from knowledge_distiller import Term
from recipe import Recipe

published: Scores = {}


def cfg(teacher: str = "resnet34", student: str = "resnet18") -> Recipe:
    """The run of one pair."""
    return recipe("fitnet", teacher, student, fitnet=Term("fitnet", 100.0, options={"hint": 2}))
