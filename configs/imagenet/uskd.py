"""Self-distillation by Zipf's law on ImageNet, without a teacher.

Yang et al., ICCV 2023, arXiv 2303.13005.

Command    python train_with_distillation.py --cfg configs/imagenet/uskd.py data.data_path=/data/lmdb \
               [student=resnet50]
Hardware   any; the global batch of 256 is shared by the visible GPUs
Published  top-1 70.79 for ResNet-18 and 77.07 for ResNet-50, by the authors' README; not yet repeated with this code
"""

from dataclasses import replace

from configs.imagenet._common import PAIRS, recipe
from knowledge_distiller import Term
from recipe import Recipe


def cfg(student: str = "resnet18") -> Recipe:
    """The run of one student."""
    plain = recipe("uskd", PAIRS[0][0], student, uskd=Term("uskd", options={"alpha": 1.0, "beta": 0.1, "mu": 0.005}))
    return replace(plain, name=f"imagenet_{student}_uskd", teachers={})
