"""What of a distiller is trained, by the names that configs use: `student.layer4`, `terms.ft.translator`, ..."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping

from torch import nn

from knowledge_distiller import KnowledgeDistiller
from utils.errors import UsageError


def trainable_parameters(distiller: KnowledgeDistiller) -> dict[str, nn.Parameter]:
    """All that can be trained, by name: the student by the paths of its own library, objectives by their terms."""
    named = {f"student.{name}": parameter for name, parameter in distiller.student.network.named_parameters()}
    for name, match in distiller.matches.items():
        for path, parameter in match.named_parameters():
            named[f"terms.{name}.{path.removeprefix('function.')}"] = parameter
    return {name: parameter for name, parameter in named.items() if parameter.requires_grad}


def train_only(
    parameters: Mapping[str, nn.Parameter], trainable: Collection[str], frozen_terms: Collection[str] = ()
) -> None:
    """Freeze all parameters but those that are named.

    Args:
        parameters: as `trainable_parameters` gives them.
        trainable: beginnings of their names; all when empty. `terms` may be named where no term has parameters.
        frozen_terms: terms whose parameters are frozen in any case.

    Raises:
        UsageError: nothing is called by one of ``trainable``.
    """
    usable = [name for name in parameters if not any(_is_below(name, f"terms.{term}") for term in frozen_terms)]
    for start in trainable:
        if start != "terms" and not any(_is_below(name, start) for name in usable):
            parts = [name.split(".") for name in usable]
            known = dict.fromkeys(".".join(part[:depth]) for part in parts for depth in range(1, len(part) + 1))
            near = difflib.get_close_matches(start, known, n=3, cutoff=0.3) or ["student"]
            raise UsageError(f"trainable: nothing to train is called {start}; near: {', '.join(near)}")
    chosen = {name for name in usable if not trainable or any(_is_below(name, start) for start in trainable)}
    for name, parameter in parameters.items():
        parameter.requires_grad_(name in chosen)


def _is_below(name: str, start: str) -> bool:
    return name == start or name.startswith(f"{start}.")
