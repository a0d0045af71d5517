"""Self-distillation by Zipf's law on CIFAR-100, without a teacher.

Yang et al., ICCV 2023, arXiv 2303.13005; the weights are the authors'.

Command    python train_with_distillation.py --cfg configs/cifar100/uskd.py data.data_path=/data/cifar100 \
               [student=resnet8x4]
Published  no score for this recipe
"""

from dataclasses import replace

from configs.cifar100._common import recipe
from knowledge_distiller import Term
from recipe import Recipe


def cfg(student: str = "resnet8x4") -> Recipe:
    """The run of one student."""
    plain = recipe("uskd", None, student, uskd=Term("uskd", options={"alpha": 0.1, "beta": 0.1, "mu": 0.1}))
    return replace(plain, name=f"cifar100_{student}_uskd")
