"""What is said of runs: what they will do, what each has come to, and how they compare."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from dataset.store.samples import Samples
from figures import comparison, curves, per_class
from recipe import Recipe
from training.announce import described
from training.logs import Extra
from training.loop import Trainer
from utils.console import scores_line


def announce(
    cfgs: Mapping[str, Recipe],
    splits: tuple[Samples, Samples],
    trainers: Mapping[str, Trainer],
    remarks: Iterable[str],
) -> None:
    """Print what runs, by name, will do, once what they have in common; ``remarks`` on training and validation split
    come first."""
    shown = dict.fromkeys(remarks)
    for name, cfg in cfgs.items():
        networks = {"student": cfg.student, **cfg.teachers}
        entries = described(cfg.data, splits, networks, trainers[name], cfg.unused_settings)
        shown |= dict.fromkeys([f"{cfg.folder}: {trainers[name].stands}", *entries])
    print("\n".join(shown))


def show_best(trainer: Trainer) -> None:
    """Draw what a run has come to, and print its best scores, on the first rank."""
    if trainer.ranks.first:
        path = trainer.run.path
        Extra("curves.png").do(lambda: curves.draw([path], path / "curves.png"))
        Extra("per_class.png").do(lambda: per_class.draw_in(path))
        best = trainer.state.best
        print(f"{path}: best after epoch {best['epoch']:g}: {scores_line(best)}")


def compare(cfgs: Mapping[str, Recipe]) -> None:
    """Print the table of runs, and write it and their curves beside the first one's folder."""
    folders = [cfg.folder for cfg in cfgs.values()]
    table = folders[0].with_name(f"{folders[0].name}.comparison.json")
    Extra("comparison").do(lambda: print(comparison.compare(folders, table)))
