"""A small detector learns a few photos by heart: a check of boxes, views, detector, losses and scores.

Command    python -m benchmarks.few_boxes
Hardware   2 CPU cores
"""

from dataset.loader import DataConfig
from knowledge_distiller import Term
from models.detectors import DetectorConfig
from models.zoo import NetworkConfig
from recipe import Recipe
from training.loop import TrainConfig
from training.optimizer import OptimConfig
from training.phases import Phase


def cfg(detector: str = "fasterrcnn", weights: str = "default", epochs: str = "80") -> Recipe:
    """detector: fasterrcnn or retinanet; weights: of the backbone."""
    neck = "fpn_v2" if detector == "retinanet" else "fpn"  # with norms in its head, which learns several times as fast
    return Recipe(
        name=f"few_boxes_{detector}",
        task="detection",
        data=DataConfig(
            data_path="PATH/TO/packed",
            batch_size=2,
            num_workers=0,
            val_split="train",
            type_of_data_aug="short_side",
            short_sides=(320,),
            longest_side=448,
            val_crop="short_side",
            val_resize=320,
            val_batch_size=4,
            flip=False,
        ),
        student=NetworkConfig(
            f"{detector}_mobilenet_v2_{neck}",
            weights,
            detector=DetectorConfig(channels=64, representation=256, regions=128, anchor_size=16),
        ),
        teachers={},
        phases={
            "training": Phase(
                int(epochs),
                {"detection": Term("detection")},
                OptimConfig(optimizer="adamw", init_lr=1e-3, schedule="onecycle", weight_decay=0.0, grad_clip=5.0),
                freeze_norms="all",
            )
        },
        train_params=TrainConfig(print_freq=1000, checkpoint_steps=0),
    )
