"""Students that no run has trained, small enough for a test."""

from pathlib import Path

import torch

from dataset.config import DataConfig
from export.student import Settings, Student
from models.zoo import NetworkConfig, build_network

CLASSES = ("a", "b", "c", "d", "e")


def student_with(network, task="single_label", side=32, options=None, **data):
    """One of five classes, with batch norms as training leaves them."""
    torch.manual_seed(0)
    shown = DataConfig(**{"data_path": "", "input_size": side, "val_resize": side, **data})
    teacher = build_network(NetworkConfig("cifar_resnet14"), len(CLASSES), side=side)
    settings = Settings(shown, network, task, options or {})
    reads = settings.made_task().reads
    made = build_network(network, len(CLASSES), reads, side, others={"teacher": teacher}, classes=CLASSES)
    for module in made.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2)
    return Student(Path("nowhere"), settings, made.requires_grad_(False).eval(), CLASSES)


def pixels(count, side, seed=0):
    """uint8 [count, 3, side, side]."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, side, side), generator=generator, dtype=torch.uint8)
