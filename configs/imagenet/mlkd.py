"""Multi-level logit distillation on ImageNet.

Jin et al., CVPR 2023: every level for both views.

Command    python train_with_distillation.py --cfg configs/imagenet/mlkd.py data.data_path=/data/lmdb \
               [teacher=resnet50 student=timm/mobilenetv1_100]
Hardware   any; the global batch of 512 is shared by the visible GPUs
Published  the scores below, by public listings; not yet repeated with this code
"""

from dataclasses import replace

from configs.imagenet._common import Scores, by_pair, recipe
from knowledge_distiller import Term
from recipe import Recipe

published: Scores = by_pair(71.90, 73.01)


def cfg(teacher: str = "resnet34", student: str = "resnet18") -> Recipe:
    """The run of one pair."""
    return of_both_views("mlkd", teacher, student, Term("mlkd", 0.5, options={"temperature": 1.0}))


def of_both_views(method: str, teacher: str, student: str, levels: Term) -> Recipe:
    """Cross-entropy of 0.5 and all ``levels``, for the images and for their strong views."""
    plain = recipe(
        method,
        teacher,
        student,
        512,
        cross_entropy=Term("cross_entropy", 0.5),
        mlkd=levels,
        strong_cross_entropy=Term("cross_entropy", 0.5, strong=True),
        strong_mlkd=replace(levels, strong=True),
    )
    return replace(plain, data=replace(plain.data, strong_view=True))
