"""L2D on VOC2007: a teacher with label embeddings, then a student that learns its logits and embeddings.

Command    python train_with_distillation.py --cfg configs/voc_l2d.py data.data_path=/data/voc \
               [teacher=resnet101 student=resnet34] [feature=none embeddings=led logits=mld]
Data       dataset/voc2lmdb.py
Teacher    trained first where it is not there yet; settings of its run: teacher.optim.init_lr=...
Pairs      python train_with_distillation.py --cfg configs/voc_l2d.py --methods
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
    return l2d("voc", teacher, student, feature, embeddings, logits, weights)


def methods() -> str:
    """What --methods shows."""
    return listed("voc_l2d", "no scores at hand", ROWS)
