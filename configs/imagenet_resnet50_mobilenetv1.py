"""ResNet-50 teaches MobileNetV1 on ImageNet with weighted soft labels.

Command    python train_with_distillation.py --cfg configs/imagenet_resnet50_mobilenetv1.py data.data_path=/data/lmdb
Needs      pip install timm
Expected   top-1 71.52 (Zhou et al., ICLR 2021; without distillation 68.87); not yet repeated with this code
"""

from dataclasses import replace

from imagenet_train_cfg import cfg as base
from models.zoo import NetworkConfig
from teachers import TeacherConfig

cfg = replace(
    base,
    name="mobilenetv1_wsld",
    student=NetworkConfig("timm/mobilenetv1_100"),
    teachers={"teacher": TeacherConfig("resnet50", weights="IMAGENET1K_V1")},
)
