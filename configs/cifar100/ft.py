"""Factor transfer on CIFAR-100.

Kim et al., NeurIPS 2018, arXiv 1802.04977, as RepDistiller has it: 30 epochs for the paraphraser, then the student.

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
    term = Term("ft", 200.0, options={"over_channels": True})
    plain = recipe("ft", teacher, student, ft=term)
    first = replace(plain.optim, init_lr=0.01, milestones=(), moves=("terms.ft.paraphraser",))
    return replace(
        plain,
        first={"paraphraser": Stage(30, {"ft": replace(term, weight=1.0)}, first)},
        optim=replace(plain.optim, moves=("student", "terms.ft.translator")),
    )
