"""Ten ImageNet classes at 128 pixels by three objectives, from a MobileNetV2 with 1000 outputs: what stores cost.

Command    python -m benchmarks.stored_accuracy
Hardware   any
"""

from dataclasses import replace

from configs.imagenette_wsld import cfg as base
from knowledge_distiller import Term
from recipe import Recipe
from training.loop import TrainConfig
from training.optimizer import OptimConfig
from training.phases import Phase
from utils.config import entry

METHODS = {
    "wsld": Term("wsld", 2.5, options={"temperature": 2.0}),
    "kd": Term("kd", 1.0, options={"temperature": 4.0}),
    "dkd": Term("dkd", 1.0, options={"temperature": 4.0}),
}


def cfg(method: str = "wsld", epochs: str = "30") -> Recipe:
    """method: wsld at temperature 2, kd or dkd at 4."""
    terms = {"cross_entropy": Term("cross_entropy"), method: entry(METHODS, method, "method")}
    optim = OptimConfig(init_lr=0.05, schedule="cosine", warmup_epochs=2)
    return replace(
        base,
        name="stored",
        phases={"distillation": Phase(int(epochs), terms, optim)},
        train_params=TrainConfig(print_freq=1000, checkpoint_steps=0),
    )
