"""Feature mimicking by hashing on ImageNet.

Wang et al., TPAMI 2021, arXiv 2011.01424.

Command    python train_with_distillation.py --cfg configs/imagenet/lshfm.py data.data_path=/data/lmdb \
               [teacher=resnet50 student=timm/mobilenetv1_100]
Hardware   any; the global batch of 256 is shared by the visible GPUs
Published  the scores below, by public listings, 71.72 with ResNet-18; not yet repeated with this code
"""

from configs.imagenet._common import PAIRS, Scores, dimensions, recipe
from knowledge_distiller import Term
from models.heads import HeadConfig
from recipe import Recipe

published: Scores = {PAIRS[0]: 71.72}


def cfg(teacher: str = "resnet34", student: str = "resnet18") -> Recipe:
    """The run of one pair."""
    options: dict[str, float | bool | str] = {"hashes": 2048, "correct_only": True}
    term = Term("lshfm", 5.0, options=options)
    head = HeadConfig("embedding", {"dimensions": dimensions(teacher)})
    return recipe("lshfm", teacher, student, head=head, lshfm=term)
