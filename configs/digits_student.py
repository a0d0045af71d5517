"""A ResNet-8 on the handwritten digits, alone: what the distilled student of the demo is compared with.

Command    make demo
"""

from dataclasses import replace

from configs.digits_teacher import cfg as base
from models.zoo import NetworkConfig

cfg = replace(
    base,
    name="digits_student",
    student=NetworkConfig("cifar_resnet8"),
    train_params=replace(base.train_params, epochs=5),
)
