"""What a page is made of: the sections of one training run, each defined beside the component that reads it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from dataset.loader import DataConfig
from knowledge_distiller import Term
from models.zoo import NetworkConfig
from training.loop import TrainConfig
from training.optimizer import OptimConfig
from training.stages import Stage
from utils.config import leaves
from utils.errors import UsageError


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
    first: dict[str, Stage] = field(default_factory=dict)
    """stages before the one that ``terms``, ``optim`` and ``train_params.epochs`` describe, by name, in order"""

    @property
    def stages(self) -> tuple[Stage, ...]:
        """All, in order."""
        return (*self.first.values(), Stage(self.train_params.epochs, self.terms, self.optim))

    @property
    def all_terms(self) -> dict[str, Term]:
        """The terms of all stages.

        Raises:
            UsageError: two terms of one name differ in more than their weights.
        """
        terms: dict[str, Term] = {}
        places: dict[str, str] = {}
        for place, stage in zip((*(f"first.{name}." for name in self.first), ""), self.stages):
            for name, term in stage.terms.items():
                known, first = terms.setdefault(name, term), places.setdefault(name, f"{place}terms.{name}")
                if replace(term, weight=known.weight, ramp=known.ramp) != known:
                    raise UsageError(f"{place}terms.{name} differs from {first}: set both alike, or rename one")
        return terms

    def check(self) -> None:
        """Raises UsageError where a number is out of its range, or the name leads elsewhere."""
        for key, value in leaves(self).items():
            setting = ".".join(key.split(".")[-2:])  # those of first stages too
            if setting in _LEAST and value < _LEAST[setting]:
                raise UsageError(f"{key}={value}: at least {_LEAST[setting]}")
            if setting == "optim.momentum" and value >= 1:
                raise UsageError(f"{key}={value}: below 1")
        if {"..", "/"} & {*Path(self.name).parts}:
            raise UsageError(f"name={self.name}: a folder below train_params.output_path, without .. or a leading /")


_LEAST = {
    "data.input_size": 1,
    "data.val_resize": 1,
    "data.num_workers": 0,
    "optim.init_lr": 0,
    "optim.min_lr": 0,
    "optim.momentum": 0,
    "optim.weight_decay": 0,
    "train_params.checkpoint_steps": 0,
}
