"""Decoupled knowledge distillation on CIFAR-100.

Zhao et al., CVPR 2022, arXiv 2203.08679.

Command    python train_with_distillation.py --cfg configs/cifar100/dkd.py data.data_path=/data/cifar100 \
               [teacher=resnet32x4 student=resnet8x4]
Published  the scores below, by MDistiller's README; not yet repeated with this code
"""

from configs.cifar100._common import WARMUP, Scores, by_pair, recipe
from knowledge_distiller import Term
from recipe import Recipe

published: Scores = by_pair(71.97, 74.11, 76.32, 76.23, 74.81, 74.68, 76.45, 76.70, 69.71, 70.35, 77.07)


def cfg(teacher: str = "resnet32x4", student: str = "resnet8x4") -> Recipe:
    """The run of one pair."""
    beta = BETAS.get((teacher, student), 8.0)
    dkd = Term("dkd", options={"alpha": 1.0, "beta": beta, "temperature": 4.0}, ramp=WARMUP)
    return recipe("dkd", teacher, student, dkd=dkd)


BETAS = {  # 8 for all others
    ("resnet56", "resnet20"): 2.0,
    ("resnet110", "resnet32"): 2.0,
    ("wrn_40_2", "wrn_16_2"): 6.0,
    ("wrn_40_2", "wrn_40_1"): 6.0,
    ("vgg13", "vgg8"): 6.0,
    ("vgg13", "mobilenetv2"): 6.0,
}
