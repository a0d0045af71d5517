"""A phase of a run: how long it is, what it learns from, how, and what of the networks it trains."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from knowledge_distiller import Term
from training.optimizer import OptimConfig
from utils.settings import about


@dataclass(frozen=True)
class Phase:
    """A part of a run, with an optimizer, a schedule and ramps that begin with it."""

    epochs: int = field(metadata=about(least=1, most=10**6, also=("max_epochs", "num_epochs")))
    """passes over the training images"""
    terms: dict[str, Term]
    """parts of the loss, by the name they are logged under; terms of one name in several phases share what they have
    learned"""
    optim: OptimConfig = OptimConfig()
    """how the trainable parameters are updated"""
    trainable: tuple[str, ...] = ()
    """what is trained: student, student.layer4, terms.ft.paraphraser, ...; everything when not given"""
    freeze_norms: Literal["none", "statistics", "all"] = "none"
    """what the student's batch norms keep: their statistics, or these and their scales and shifts too"""
