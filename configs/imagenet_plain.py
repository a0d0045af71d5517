"""ResNet-18 on ImageNet without a teacher: the baseline of every distillation.

Command    python train_with_distillation.py --cfg configs/imagenet_plain.py data.data_path=/data/lmdb
Expected   top-1 69.75 (torchvision's published ResNet-18, the baseline of Zhou et al., ICLR 2021); not yet repeated
           with this code
"""

from dataclasses import replace

from imagenet_train_cfg import cfg as base
from knowledge_distiller import Term

cfg = replace(base, name="resnet18_plain", teachers={}, terms={"cross_entropy": Term("cross_entropy")})
