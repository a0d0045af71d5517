"""Feature mimicking by hashing on CIFAR-100.

Wang et al., TPAMI 2021, arXiv 2011.01424: hashes and squared distance, of samples that the teacher gets right.

Command    python train_with_distillation.py --cfg configs/cifar100/lshfm.py data.data_path=/data/cifar100 \
               [teacher=resnet32x4 student=resnet8x4]
Published  no score for this recipe
"""

from configs.cifar100._common import Scores, dimensions, recipe
from knowledge_distiller import Term
from models.heads import HeadConfig
from recipe import Recipe

published: Scores = {}


def cfg(teacher: str = "resnet32x4", student: str = "resnet8x4") -> Recipe:
    """The run of one pair."""
    term = Term("lshfm", 6.0, options={"correct_only": True, "bias": "median"})
    head = HeadConfig("embedding", {"dimensions": dimensions(teacher)})
    return recipe("lshfm", teacher, student, head=head, lshfm=term)
