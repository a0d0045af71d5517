"""Multi-level logit distillation on CIFAR-100.

Jin et al., CVPR 2023: every level for both views, as the paper says; mlkd_released.py has the sum of the released code.

Command    python train_with_distillation.py --cfg configs/cifar100/mlkd.py data.data_path=/data/cifar100 \
               [teacher=resnet32x4 student=resnet8x4]
Published  no score for this recipe
"""

from dataclasses import replace

from configs.cifar100._common import Scores, recipe
from knowledge_distiller import Term
from recipe import Recipe

published: Scores = {}


def cfg(teacher: str = "resnet32x4", student: str = "resnet8x4") -> Recipe:
    """The run of one pair."""
    plain = recipe("mlkd", teacher, student)
    return replace(plain, data=replace(plain.data, strong_view=True), terms=terms())


def terms(weight: float = 0.9, temperature: float = 4.0, *, standardize: bool = False) -> dict[str, Term]:
    """Cross-entropy of 0.1 and all levels, for the images and for their strong views."""
    levels = Term("mlkd", weight, options={"temperature": temperature}, standardize=standardize)
    return {
        "cross_entropy": Term("cross_entropy", 0.1),
        "mlkd": levels,
        "strong_cross_entropy": Term("cross_entropy", 0.1, strong=True),
        "strong_mlkd": replace(levels, strong=True),
    }
