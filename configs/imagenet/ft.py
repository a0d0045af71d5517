"""Factor transfer on ImageNet.

Kim et al., NeurIPS 2018, arXiv 1802.04977, as torchdistill has it: an epoch for the paraphraser, then the student.

Command    python train_with_distillation.py --cfg configs/imagenet/ft.py data.data_path=/data/lmdb \
               [teacher=resnet50 student=timm/mobilenetv1_100]
Hardware   any; the global batch of 256 is shared by the visible GPUs
Published  the scores below, by torchdistill's table, the paper's own; not yet repeated with this code
"""

from dataclasses import replace

from configs.imagenet._common import PAIRS, Scores, recipe
from knowledge_distiller import Term
from recipe import Recipe
from training.stages import Stage

published: Scores = {PAIRS[0]: 71.43}


def cfg(teacher: str = "resnet34", student: str = "resnet18") -> Recipe:
    """The run of one pair."""
    plain = recipe("ft", teacher, student, ft=Term("ft", 1000.0))
    first = replace(plain.optim, init_lr=0.01, milestones=(), moves=("terms.ft.paraphraser",))
    return replace(
        plain,
        first={"paraphraser": Stage(1, {"ft": Term("ft")}, first)},
        optim=replace(plain.optim, moves=("student", "terms.ft.translator")),
    )
