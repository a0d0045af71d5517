"""A patient and consistent teacher on ImageNet: function matching.

Beyer et al., Knowledge distillation: a good teacher is patient and consistent, CVPR 2022, arXiv 2106.05237. Teacher and
student see the same view, mixed with another in shares drawn evenly; only the divergence at temperature 1 counts, for
very long. Both networks are timm's ports of the paper's.

Command    python train_with_distillation.py --cfg configs/imagenet_patient.py data.data_path=/data/lmdb \
               [epochs=300]
Hardware   any; the global batch of 1024 is shared by the visible GPUs
Published  top-1 82.8 after 9600 epochs with Shampoo (the paper); not yet repeated with this code, which has SGD
Debug      python train_with_distillation.py --cfg configs/imagenet_patient.py data.data_path=/data/lmdb name=debug \
               epochs=1 data.train_split=val data.batch_size=32
"""

from dataclasses import replace

from imagenet_train_cfg import cfg as wsld
from knowledge_distiller import Term
from models.zoo import NetworkConfig
from teachers import TeacherConfig
from training.phases import Phase

cfg = replace(
    wsld,
    name="imagenet_patient",
    data=replace(wsld.data, batch_size=1024, mixup=1.0),
    student=NetworkConfig("timm/resnetv2_50x1_bit.goog_distilled_in1k"),
    teachers={"teacher": TeacherConfig("timm/resnetv2_152x2_bit.goog_teacher_in21k_ft_in1k", weights="default")},
    phases={
        "distillation": Phase(
            epochs=1200,
            terms={"kd": Term("kd", options={"temperature": 1.0})},
            optim=replace(
                wsld.last.optim, init_lr=0.4, schedule="cosine", warmup_epochs=5, nesterov=False, grad_clip=1.0
            ),
        )
    },
)
