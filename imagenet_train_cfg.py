"""ResNet-34 teaches ResNet-18 on ImageNet with weighted soft labels.

Command    python train_with_distillation.py data.data_path=/data/lmdb
Hardware   any; the global batch of 256 is shared by the visible GPUs
Expected   top-1 72.04 (Zhou et al., ICLR 2021; without distillation 69.75); not yet repeated with this code
Also       ResNet-50 teaches MobileNetV1 (71.52; 68.87 without distillation; pip install timm): name=mobilenetv1_wsld \
               student.name=timm/mobilenetv1_100 teachers.teacher.name=resnet50
Debug      python train_with_distillation.py data.data_path=/data/lmdb name=debug epochs=1 \
               data.train_split=val data.batch_size=32
"""

from dataset.loader import DataConfig
from knowledge_distiller import Term
from models.zoo import NetworkConfig
from recipe import Recipe
from teachers import TeacherConfig
from training.loop import TrainConfig
from training.optimizer import OptimConfig
from training.phases import Phase

cfg = Recipe(
    name="resnet18_wsld",
    data=DataConfig(
        data_path="PATH/TO/imagenet_lmdb",  # holds train/ and val/, written by dataset/img2lmdb.py
        batch_size=256,  # over all GPUs
        num_workers=8,  # for each GPU
        input_size=224,
        type_of_data_aug="random_sized",  # or rand_scale
        scale=(0.08, 1.0),
    ),
    student=NetworkConfig("resnet18"),
    teachers={"teacher": TeacherConfig("resnet34", weights="IMAGENET1K_V1")},
    phases={
        "distillation": Phase(
            epochs=100,
            terms={
                "cross_entropy": Term("cross_entropy"),
                "wsld": Term("wsld", weight=2.5, options={"temperature": 2.0}),
            },
            optim=OptimConfig(
                init_lr=0.1,
                schedule="step",
                milestones=(30, 60, 90),
                momentum=0.9,
                nesterov=True,
                weight_decay=1e-4,
            ),
        )
    },
    train_params=TrainConfig(amp="bf16"),
)
