"""Scores of one network, without training: a teacher by name, a student, the best of a run, or a file of weights."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from dataset.loader import EvalLoader, open_split
from figures import per_class
from networks import build_evaluated
from recipe import Recipe
from training.scores import Scorer
from utils.console import scores_line
from utils.distributed import Ranks
from utils.files import make_folder


def evaluate(cfg: Recipe, what: str, ranks: Ranks, tables: Path | None) -> None:
    """Print the validation scores of a teacher by name, the student, or weights in a file or a run's folder."""
    if tables:
        make_folder(tables, "--tables")
    config, task = cfg.network(what), cfg.made_task()
    val = open_split(cfg.data, cfg.data.val_split, cfg.data.val_data_type)
    network = build_evaluated(cfg, config, what, val, ranks)
    validation = EvalLoader(val, cfg.data, ranks.rank, ranks.world, ranks.device, task.targets(val.classes))
    scorer = Scorer(validation, task, cfg.train_params, val.classes, ranks)
    with closing(validation):
        scores = scorer(network.predict, network.places)
    if ranks.first:
        print(f"{what}: {scores_line(scores)}")
        if tables:
            scorer.write_predictions(tables)
            per_class.draw_in(tables)
            print(f"{tables}: {', '.join(sorted(path.name for path in tables.iterdir())) or 'this task has no tables'}")
