"""FitNets on CIFAR-100.

Romero et al., ICLR 2015, arXiv 1412.6550, in a single run as RepDistiller and MDistiller have it.

Command    python train_with_distillation.py --cfg configs/cifar100/fitnet.py data.data_path=/data/cifar100 \
               [teacher=resnet32x4 student=resnet8x4]
Published  the scores below, by RepDistiller's README; not yet repeated with this code
"""

from configs.cifar100._common import Scores, recipe
from knowledge_distiller import Term
from recipe import Recipe

published: Scores = {("resnet32x4", "resnet8x4"): 73.50, ("resnet50", "mobilenetv2"): 63.16}


def cfg(teacher: str = "resnet32x4", student: str = "resnet8x4") -> Recipe:
    """The run of one pair."""
    return recipe("fitnet", teacher, student, fitnet=Term("fitnet", 100.0, options={"hint": 2}))
