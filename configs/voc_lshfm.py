"""LSHFM on VOC2007: a teacher, then a student that mimics its features, which hashes and distances compare.

Command    python train_with_distillation.py --cfg configs/voc_lshfm.py data.data_path=/data/voc \
               [student=resnet50 teacher=resnet101] [method=lshl2]
Data       dataset/voc2lmdb.py
Methods    lsh, lshl2, l2, kd, or none for a network alone; _gmp or _gwp behind a network's name is its pooling, by the
           largest or by the mean of that and the average
Teacher    trained first where it is not there yet; settings of its run: teacher.optim.init_lr=...
Rows       python train_with_distillation.py --cfg configs/voc_lshfm.py --methods
Published  the scores there; not yet repeated with this code
"""

from configs._lshfm import SETUPS, lshfm
from configs._multi_label import listed
from recipe import Recipe

ROWS = SETUPS["voc"].rows


def cfg(
    student: str = "resnet50", teacher: str = "resnet101", method: str = "lshl2", weights: str = "default"
) -> dict[str, Recipe]:
    """weights=none where ImageNet's cannot be fetched, or a file."""
    return lshfm("voc", student, teacher, method, weights)


def methods() -> str:
    """What --methods shows."""
    return listed("voc_lshfm", "mAP of public listings and checkpoints", ROWS)
