"""L2D on NUS-WIDE: a teacher with label embeddings, then a student that learns its logits and embeddings.

Command    python train_with_distillation.py --cfg configs/nus_l2d.py data.data_path=/data/nus \
               [teacher=resnet101 student=resnet34] [feature=none embeddings=led logits=mld]
Data       dataset/nuswide2lmdb.py --unlabelled keep
Teacher    trained first where it is not there yet; settings of its run: teacher.optim.init_lr=...
Pairs      python train_with_distillation.py --cfg configs/nus_l2d.py --methods
Without    weights=none where ImageNet's weights cannot be fetched
"""

from configs._l2d import ROWS, l2d
from configs._multi_label import listed
from recipe import Recipe


def cfg(
    teacher: str = "resnet101",
    student: str = "resnet34",
    feature: str = "none",
    embeddings: str = "led",
    logits: str = "mld",
    weights: str = "default",
) -> dict[str, Recipe]:
    """Parts that may be none: feature (pkt, rkd, reviewkd), embeddings (cd, id, led), logits (mld, partial_softmax)."""
    return l2d("nus", teacher, student, feature, embeddings, logits, weights)


def methods() -> str:
    """What --methods shows."""
    return listed("nus_l2d", "no scores at hand", ROWS)
