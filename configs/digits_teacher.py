"""A ResNet-20 on the handwritten digits of scikit-learn: the teacher of the demo.

Command    make demo
Hardware   2 CPU cores, under half a minute
"""

from dataset.loader import DataConfig
from knowledge_distiller import Term
from models.zoo import NetworkConfig
from recipe import Recipe
from training.loop import TrainConfig
from training.optimizer import OptimConfig

cfg = Recipe(
    name="digits_teacher",
    data=DataConfig(
        data_path="demo/work/lmdb",
        batch_size=50,
        num_workers=1,
        input_size=16,  # twice the 8 x 8 pixels of the digits
        scale=(0.6, 1.0),
        flip=False,  # a mirrored digit is another sign
        val_resize=16,
    ),
    student=NetworkConfig("cifar_resnet20"),
    teachers={},
    terms={"cross_entropy": Term("cross_entropy")},
    optim=OptimConfig(init_lr=0.1, schedule="cosine", warmup_epochs=1, weight_decay=5e-4),
    train_params=TrainConfig(epochs=15, print_freq=10, output_path="demo/work/runs"),
)
