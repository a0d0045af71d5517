"""Train a student by distillation, or evaluate a network.

    python train_with_distillation.py [--cfg config.py] [key=value ...]    one rank on each visible GPU
    torchrun --nproc_per_node=8 train_with_distillation.py [the same]
    python train_with_distillation.py --eval runs/x                        the best student of a run, as it was trained
    python train_with_distillation.py --eval teacher                       a teacher by name, student, or a weights file

--cfg FILE    a config, imagenet_train_cfg.py when not given; configs/imagenet.py method=dkd, ... are published methods
--methods     show them, with the scores that were published
--eval WHAT   print its scores and train nothing; --tables FOLDER also writes those of each class, and the predictions
--fresh       start over, and keep the old run beside the new one; without it the same command resumes a stopped run

Some configs have several runs, whose students teach the last one; those that ended before are passed over.
--only RUN       train that one alone
--at_a_time N    train as many of those before the last at once, each on its share of the GPUs

Exit codes: 0 done, 2 wrong configuration or input, 3 damaged data, 4 diverged, 5 another rank lost, 75 stopped by a
signal or a closed pipe, state saved.
"""

from __future__ import annotations

import dataclasses
import faulthandler
import sys
from contextlib import closing
from pathlib import Path

from torch.distributed.elastic.multiprocessing.errors import record

from dataset.classes import check_splits
from dataset.loader import EvalLoader, TrainLoader, open_split
from figures import curves, per_class
from networks import build_distiller, build_evaluated, open_splits
from procedure import read_command_line
from recipe import Recipe
from training.advice import advising
from training.announce import described
from training.facts import facts_of
from training.logs import Extra
from training.loop import Trainer
from training.run_folder import RunFolder
from training.scores import Scorer
from training.settings import check_machine
from training.signals import Stop
from training.state import State
from training.teacher_check import IMAGES, check_teachers
from utils.console import report, scores_line
from utils.distributed import Ranks, any_rank, barrier, launch_on_every_gpu, printed_once, ranks
from utils.errors import ExpectedError
from utils.files import make_folder


def run(cfg: Recipe, ranks: Ranks, stop: Stop, *, fresh: bool) -> None:
    """Task, run folder, data, networks, check of the teachers, state, phases, scores."""
    check_machine(cfg.train_params, cfg.data.batch_size, ranks)
    task, params, place = cfg.made_task(), cfg.train_params, (ranks.rank, ranks.world, ranks.device)
    folder = RunFolder(cfg.folder)
    folder.claim(cfg.resume_remarks, ranks, fresh=fresh)

    train, val = open_splits(cfg.data, task)
    remarks = check_splits(train, val)
    targets = task.targets(train.classes)
    loader = TrainLoader(train, cfg.data, params.seed, *place, targets)
    validation = EvalLoader(val, cfg.data, *place, targets)

    distiller = build_distiller(cfg, train, ranks)
    state = State(distiller, cfg.phases, params, task, folder, ranks)
    if not any_rank(folder.is_begun and not fresh):  # a resumed run has the same teachers
        quick = Scorer(validation.spread(IMAGES), task, params, train.classes, ranks)
        check_teachers(distiller.teachers, cfg.teachers, task, val.labels, quick)

    config = dataclasses.asdict(cfg)
    facts = facts_of({"train": train, "val": val}, distiller.teachers) if ranks.first else {}
    folder.begin(config, cfg.resume_remarks, facts, ranks, fresh=fresh)
    resumed = state.resume()
    trainer = Trainer(state, loader, folder)
    if ranks.first:
        for remark in remarks:
            print(remark)
        begins = f"{'resumes' if state.epoch < state.epochs else 'ended'} after step {state.step}"
        print(f"{folder.path}: {begins if resumed else 'a new run'}")
        print(described(cfg.data, (train, val), {"student": cfg.student, **cfg.teachers}, trainer, cfg.unused_settings))
    with closing(loader), closing(validation):
        best = trainer.train(Scorer(validation, task, params, train.classes, ranks), config, stop)
    if ranks.first:
        Extra("curves.png").do(lambda: curves.draw([folder.path], folder.path / "curves.png"))
        Extra("per_class.png").do(lambda: per_class.draw_in(folder.path))
        print(f"{folder.path}: best after epoch {best['epoch']:g}: {scores_line(best)}")


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


@record
def main() -> None:
    """Read the settings once, and train or evaluate."""
    with Stop() as stop:
        try:
            with printed_once(), advising():
                procedure, options = read_command_line(__doc__ or "")
            if options.at_a_time:
                procedure.train_at_once(__file__, options.at_a_time, stop)
            code = launch_on_every_gpu(__file__)
            if code is not None:
                sys.exit(code)
            with ranks(procedure.last.train_params.timeout_minutes) as place, advising():
                for note in options.notes if place.first else ():
                    print(note, file=sys.stderr)
                if options.eval:
                    evaluate([*procedure.resolved().values()][-1], options.eval, place, options.tables)
                for cfg, fresh in () if options.eval else procedure.to_train(options, place):
                    run(cfg, place, stop, fresh=fresh)
                barrier()
        except ExpectedError as error:
            sys.exit(report(error))


if __name__ == "__main__":
    faulthandler.enable()  # a file that shrinks while it is mapped ends the process: this prints where
    main()
