"""A real run without ImageNet: a MobileNetV2 teaches a ShuffleNetV2 (half width) ten ImageNet classes at 128 pixels.

Command    python -m benchmarks.real_photos
Hardware   2 CPU cores, two minutes
Both networks keep ImageNet's 1000 outputs; list the images with `mk_img_list.py --class_list imagenet`, for its labels.
"""

from dataclasses import replace

from imagenet_train_cfg import cfg as base
from models.zoo import NetworkConfig
from teachers import TeacherConfig
from training.loop import TrainConfig
from training.optimizer import OptimConfig
from training.phases import Phase

cfg = replace(
    base,
    name="shufflenetv2_wsld",
    data=replace(base.data, input_size=128, val_resize=146, batch_size=64, num_workers=1, scale=(0.25, 1.0)),
    student=NetworkConfig("shufflenet_v2_x0_5"),
    teachers={
        "teacher": TeacherConfig("mobilenet_v2", weights="PATH/TO/mobilenet_v2.pth", mean=(0.5,) * 3, std=(0.5,) * 3)
    },
    phases={"distillation": Phase(4, base.last.terms, OptimConfig(init_lr=0.02, schedule="cosine", warmup_epochs=1))},
    train_params=TrainConfig(print_freq=5, checkpoint_steps=5),
)
