"""A small network learns a few photos with several labels by heart: a check of data, task and scores.

Command    python -m benchmarks.few_photos
Hardware   2 CPU cores, three minutes
Expected   mAP above 95 on the photos that it learns
"""

from dataset.loader import DataConfig
from knowledge_distiller import Term
from models.zoo import NetworkConfig
from recipe import Recipe
from training.loop import TrainConfig
from training.optimizer import OptimConfig
from training.phases import Phase

cfg = Recipe(
    name="few_photos",
    task="multi_label",
    data=DataConfig(
        data_path="PATH/TO/packed",
        batch_size=8,
        num_workers=0,
        train_split="train_64",
        val_split="train_64",
        input_size=64,
        type_of_data_aug="squash",
        val_crop="squash",
        flip=False,
    ),
    student=NetworkConfig("cifar_resnet8x4"),
    teachers={},
    phases={
        "training": Phase(
            45,
            {"bce": Term("bce")},
            OptimConfig(optimizer="adam", init_lr=0.005, schedule="onecycle", weight_decay=0.0),
        )
    },
    train_params=TrainConfig(print_freq=1000, checkpoint_steps=0),
)
