"""A network alone on CIFAR-100: the teacher of the other pages, or a student's baseline.

Command    python train_with_distillation.py --cfg configs/cifar100/teacher.py data.data_path=/data/cifar100 \
               [student=resnet32x4]
Published  teachers, by MDistiller's README: resnet56 72.34, resnet110 74.31, resnet32x4 79.42, resnet50 79.34,
           wrn_40_2 75.61, vgg13 74.64; not yet repeated with this code
"""

from configs.cifar100._common import recipe
from recipe import Recipe


def cfg(student: str = "resnet32x4") -> Recipe:
    """The run of one network."""
    return recipe("alone", None, student)
