"""Multi-level logit distillation on CIFAR-100, as the released code sums it.

Jin et al., CVPR 2023. There masks of half the samples or classes multiply the terms of the images after they are
averaged; of the strong views' five temperatures two look at the images, and their correlations are left out. 480 epochs
from half the usual rate.

Command    python train_with_distillation.py --cfg configs/cifar100/mlkd_released.py data.data_path=/data/cifar100 \
               [teacher=resnet32x4 student=resnet8x4]
Published  the scores below, by the README of logit standardisation; not yet repeated with this code
"""

from configs.cifar100._common import Scores, by_pair
from configs.cifar100.mlkd import of_both_views
from knowledge_distiller import Term
from recipe import Recipe

published: Scores = {
    **by_pair(72.19, 74.11, 77.08, 76.63, 75.35, 75.18),
    ("vgg13", "mobilenetv2"): 70.57,
    ("resnet50", "mobilenetv2"): 71.04,
    ("resnet32x4", "shufflenetv2"): 78.44,
}


def cfg(teacher: str = "resnet32x4", student: str = "resnet8x4") -> Recipe:
    """The run of one pair."""
    terms = {"mlkd": Term("mlkd", 0.9 / 2)}
    for temperature in (4.0, 3.0, 5.0):
        terms[f"strong_kd{temperature:g}"] = Term("kd", 0.9, options={"temperature": temperature}, strong=True)
    for temperature in (2.0, 6.0):
        terms[f"kd{temperature:g}"] = Term("kd", 0.9, options={"temperature": temperature})
    return of_both_views("mlkd_released", teacher, student, terms)
