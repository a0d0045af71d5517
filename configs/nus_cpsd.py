"""CPSD on NUS-WIDE: a teacher for each part of two partitions of the classes, then a student of them all.

Data       dataset/nuswide2lmdb.py
Partition  python -m partition /data/nus/train --kind CGP --parts 5 --output runs/nus_cgp5.json
           python -m partition /data/nus/train --kind DGP --parts 5 --output runs/nus_dgp5.json
Command    python train_with_distillation.py --cfg configs/nus_cpsd.py data.data_path=/data/nus \
               [model=resnet101] [size=448] [metric=mse] [alpha=0.5]
Teachers   trained first where they are not there yet, with --at_a_time 8 eight at once; settings of all their runs:
           [cd]gp*.optim.init_lr=...; manifest=FILE takes those that another student's manifest lists
Rows       python train_with_distillation.py --cfg configs/nus_cpsd.py --methods
Published  the scores there; not yet repeated with this code. metric=none is the network alone
"""

from configs._cpsd import ROWS, cpsd
from configs._multi_label import listed
from recipe import Recipe


def cfg(
    model: str = "resnet101",
    size: str = "448",
    cgp: str = "runs/nus_cgp5.json",
    dgp: str = "runs/nus_dgp5.json",
    metric: str = "mse",
    alpha: str = "0.5",
    manifest: str = "",
    vectors: str = "",
    weights: str = "default",
) -> dict[str, Recipe]:
    """alpha is CGP's share; vectors, a file of word vectors for model=resnet101_tf, which learns its own without."""
    return cpsd("nus", model, size, cgp, dgp, metric, alpha, manifest, vectors, weights, None)


def methods() -> str:
    """What --methods shows."""
    return listed("nus_cpsd", "mAP / CF1 / OF1 of the authors' README", ROWS["nus"])
