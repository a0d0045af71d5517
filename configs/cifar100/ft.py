"""Factor transfer on CIFAR-100.

Kim et al., NeurIPS 2018, arXiv 1802.04977, with the weight of their code: 30 epochs for the paraphraser, at the rate of
RepDistiller, then the student. RepDistiller compares the factors' mean squares over channels, with a weight of 200.

Command    python train_with_distillation.py --cfg configs/cifar100/ft.py data.data_path=/data/cifar100 \
               [teacher=resnet32x4 student=resnet8x4]
Published  the scores below, by RepDistiller's README; not yet repeated with this code
"""

from dataclasses import replace

from configs.cifar100._common import Scores, recipe
from knowledge_distiller import Term
from recipe import Recipe
from training.stages import Stage

published: Scores = {("resnet32x4", "resnet8x4"): 72.86}


def cfg(teacher: str = "resnet32x4", student: str = "resnet8x4") -> Recipe:
    """The run of one pair."""
    plain = recipe("ft", teacher, student, ft=Term("ft", 500.0))
    first = replace(plain.optim, init_lr=0.01, milestones=(), moves=("terms.ft.paraphraser",))
    return replace(
        plain,
        first={"paraphraser": Stage(30, {"ft": Term("ft")}, first)},
        optim=replace(plain.optim, moves=("student", "terms.ft.translator")),
    )
