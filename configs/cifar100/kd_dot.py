"""Distillation-oriented training on CIFAR-100.

Zhao et al., ICCV 2023, on KD.

Command    python train_with_distillation.py --cfg configs/cifar100/kd_dot.py data.data_path=/data/cifar100 \
               [teacher=resnet32x4 student=resnet8x4]
Published  the scores below, by MDistiller's README; not yet repeated with this code
"""

from dataclasses import replace

from configs.cifar100._common import Scores, recipe
from knowledge_distiller import Term
from recipe import Recipe

published: Scores = {
    ("resnet32x4", "resnet8x4"): 75.12,
    ("vgg13", "vgg8"): 73.77,
    ("resnet32x4", "shufflenetv2"): 75.55,
}


def cfg(teacher: str = "resnet32x4", student: str = "resnet8x4") -> Recipe:
    """The run of one pair."""
    hard, soft = Term("cross_entropy", 0.1), Term("kd", 0.9, options={"temperature": 4.0})
    plain = recipe("kd_dot", teacher, student, cross_entropy=hard, kd=soft)
    return replace(plain, optim=replace(plain.optim, optimizer="dot", delta=0.075))
