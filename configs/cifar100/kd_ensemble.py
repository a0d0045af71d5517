"""Knowledge distillation from two teachers on CIFAR-100: their probabilities are averaged.

Hinton et al., 2015, arXiv 1503.02531.

Command    python train_with_distillation.py --cfg configs/cifar100/kd_ensemble.py data.data_path=/data/cifar100 \
               [teacher=resnet32x4 second=wrn_40_2 student=resnet8x4]
Published  no score for this recipe
"""

from dataclasses import replace

from configs.cifar100._common import Scores, recipe
from knowledge_distiller import Term
from recipe import Recipe

published: Scores = {}


def cfg(teacher: str = "resnet32x4", student: str = "resnet8x4", second: str = "wrn_40_2") -> Recipe:
    """The run of one student."""
    soft = Term("kd", 0.9, teacher=("teacher", "second"), options={"temperature": 4.0})
    plain = recipe("kd_ensemble", teacher, student, cross_entropy=Term("cross_entropy", 0.1), kd=soft)
    other = recipe("kd_ensemble", second, student)
    return replace(plain, teachers={**plain.teachers, "second": other.teachers["teacher"]})
