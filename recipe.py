"""What a page is made of: the sections of one training run, each defined beside the component that reads it."""

from __future__ import annotations

from dataclasses import dataclass

from dataset.loader import DataConfig
from knowledge_distiller import Term
from models.zoo import NetworkConfig
from training.loop import TrainConfig
from training.optimizer import OptimConfig


@dataclass(frozen=True)
class Recipe:
    """One run: what is learned from what, and how."""

    name: str
    """the run's folder below runs/"""
    data: DataConfig
    student: NetworkConfig
    teachers: dict[str, NetworkConfig]
    """frozen networks, by the name that terms refer to; none for plain training"""
    terms: dict[str, Term]
    """parts of the loss, by the name they are logged under"""
    optim: OptimConfig = OptimConfig()
    train_params: TrainConfig = TrainConfig()
