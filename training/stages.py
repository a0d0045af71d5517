"""A part of a run: what it learns from, what moves in it, and how."""

from __future__ import annotations

from dataclasses import dataclass, field

from knowledge_distiller import Term
from training.optimizer import OptimConfig
from utils.settings import about


@dataclass(frozen=True)
class Stage:
    """A part of a run, with an optimizer, a schedule and ramps that begin with it."""

    epochs: int = field(metadata=about(least=1, most=10**6))
    """how long it is"""
    terms: dict[str, Term]
    """parts of its loss; terms of one name in several stages share what they have learned"""
    optim: OptimConfig = OptimConfig()
    """how they move"""
