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
    return of_both_views("mlkd", teacher, student, all_levels(0.9, 4.0))


def of_both_views(method: str, teacher: str, student: str, terms: dict[str, Term]) -> Recipe:
    """Cross-entropy of 0.1 for both views beside the ``terms``; the released code's 480 epochs from half the rate."""
    plain = recipe(method, teacher, student)
    hard = {
        "cross_entropy": Term("cross_entropy", 0.1),
        "strong_cross_entropy": Term("cross_entropy", 0.1, strong=True),
    }
    return replace(
        plain,
        data=replace(plain.data, strong_view=True),
        terms={**hard, **terms},
        optim=replace(plain.optim, init_lr=plain.optim.init_lr / 2),
        train_params=replace(plain.train_params, epochs=480),
    )


def all_levels(weight: float, temperature: float, *, standardize: bool = False) -> dict[str, Term]:
    """For the images and for their strong views."""
    levels = Term("mlkd", weight, options={"temperature": temperature}, standardize=standardize)
    return {"mlkd": levels, "strong_mlkd": replace(levels, strong=True)}
