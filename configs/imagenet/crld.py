"""Cross-view consistency on ImageNet.

Zhang et al., ACM Multimedia 2024, arXiv 2412.16493.

Command    python train_with_distillation.py --cfg configs/imagenet/crld.py data.data_path=/data/lmdb \
               [teacher=resnet50 student=timm/mobilenetv1_100]
Hardware   any; the global batch of 512 is shared by the visible GPUs
Published  the scores below, by public listings; not yet repeated with this code
"""

from dataclasses import replace

from configs.imagenet._common import Scores, by_pair, recipe
from knowledge_distiller import Term
from recipe import Recipe

published: Scores = by_pair(72.37, 73.53)


def cfg(teacher: str = "resnet34", student: str = "resnet18") -> Recipe:
    """The run of one pair."""
    plain = recipe(
        "crld",
        teacher,
        student,
        512,
        cross_entropy=Term("cross_entropy", 2.0),
        strong_cross_entropy=Term("cross_entropy", 2.0, strong=True),
        crld=Term("crld", options={"temperature": 1.0}),
    )
    return replace(plain, data=replace(plain.data, strong_view=True))
