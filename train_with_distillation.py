"""Train a student by distillation, or evaluate a network.

    python train_with_distillation.py [--cfg config.py ...] [key=value ...]    one rank on each visible GPU
    torchrun --nproc_per_node=8 train_with_distillation.py [the same]
    python train_with_distillation.py --eval runs/x                        the best student of a run, as it was trained
    python train_with_distillation.py --eval teacher                       a teacher by name, student, or a weights file

--cfg FILE    a config, imagenet_train_cfg.py when not given; configs/imagenet.py method=dkd, ... are published methods
              Several configs train their students at once: an image is decoded once, and seen once by each teacher
--grid KEY=VALUE,...    likewise a student for each value of a setting or a config's parameter; again, for combinations
--methods     show them, with the scores that were published
--eval WHAT   print its scores and train nothing; --tables FOLDER also writes those of each class, and the predictions
--fresh       start over, and keep the old run beside the new one; without it the same command resumes a stopped run

Some configs have several runs, whose students teach the last one; those that ended before are passed over.
--only RUN       train that one alone; likewise of several students
--at_a_time N    train as many of those before the last at once, each on its share of the GPUs

Exit codes: 0 done, 2 wrong configuration or input, 3 damaged data, 4 diverged, 5 another rank lost, 75 stopped by a
signal or a closed pipe, state saved.
"""

from __future__ import annotations

import dataclasses
import faulthandler
import sys
from collections.abc import Mapping
from contextlib import closing

sys.path.insert(0, __file__.rpartition("/")[0])  # also with -m, from a project that has folders of these names
if __name__ == "__main__":  # the imports take seconds
    from utils.starting import begin

    begin()

from torch import nn
from torch.distributed.elastic.multiprocessing.errors import record

from dataset.classes import check_splits
from dataset.loader import EvalLoader, TrainLoader
from evaluate import evaluate
from networks import build_distillers, open_splits
from procedure import read_command_line
from recipe import Recipe
from reporting import announce, compare, show_best
from training.advice import advising
from training.clock import Clock
from training.facts import facts_of
from training.keeping import Keeping
from training.loop import Trainer
from training.run_folder import RunFolder
from training.scores import Scorer
from training.settings import check_machine
from training.signals import Stop
from training.state import State
from training.teacher_check import IMAGES, check_teachers
from training.together import Together
from utils.config import HELP
from utils.console import exit_with_its_code, report
from utils.distributed import Ranks, any_rank, barrier, launch_on_every_gpu, printed_once, ranks
from utils.errors import Diverged, ExpectedError
from utils.imports import never_exiting


def run(cfgs: Mapping[str, Recipe], ranks: Ranks, stop: Stop, *, fresh: bool) -> None:
    """Run folders, data, networks, check of the teachers, states, phases, scores: of one run, or of several by name,
    which share data and teachers."""
    first = next(iter(cfgs.values()))
    folders = {name: RunFolder(cfg.folder) for name, cfg in cfgs.items()}
    task, params, place = first.made_task(), first.train_params, (ranks.rank, ranks.world, ranks.device)
    for name, cfg in cfgs.items():
        check_machine(cfg.train_params, cfg.data.batch_size, ranks)
        folders[name].claim(cfg.resume_remarks, ranks, fresh=fresh)

    train, val = open_splits(first.data, task)
    remarks = check_splits(train, val)
    targets = task.targets(train.classes)
    loader = TrainLoader(train, first.data, params.seed, *place, targets)
    validation = EvalLoader(val, first.data, *place, targets)
    distillers = dict(zip(cfgs, build_distillers([*cfgs.values()], train, ranks)))
    states = {
        name: State(one, cfgs[name].phases, cfgs[name].train_params, task, folders[name], ranks)
        for name, one in distillers.items()
    }
    new = [name for name in cfgs if not any_rank(folders[name].is_begun and not fresh)]
    unseen = {key: teacher for name in new for key, teacher in distillers[name].teachers.items()}
    configs = {key: config for cfg in cfgs.values() for key, config in cfg.teachers.items()}
    quick = Scorer(validation.spread(IMAGES), task, params, train.classes, ranks)
    check_teachers(nn.ModuleDict(unseen), configs, task, val.labels, quick)  # a resumed run has the same ones

    trainers = {}
    for name, cfg in cfgs.items():
        facts = facts_of({"train": train, "val": val}, distillers[name].teachers, cfg.networks) if ranks.first else {}
        folders[name].begin(dataclasses.asdict(cfg), cfg.resume_remarks, facts, ranks, fresh=fresh)
        states[name].resume()
        trainers[name] = Trainer(states[name], loader, folders[name], name if len(cfgs) > 1 else "")
    if ranks.first:
        announce(cfgs, (train, val), trainers, remarks)

    teachers = {key: teacher for one in distillers.values() for key, teacher in one.teachers.items()}
    keeping = Keeping(teachers, loader, params, ranks, first.folder)
    scorer = Scorer(validation, task, params, train.classes, ranks)
    steps = max(state.epochs for state in states.values()) * loader.batches
    with closing(loader), closing(validation), Clock(steps, task.running_scores, shown=ranks.first) as clock:
        for name, cfg in cfgs.items():
            trainers[name].begin(scorer, dataclasses.asdict(cfg), clock)
        diverged = Together([*trainers.values()], loader, keeping, show_best).train(clock, stop)
    if ranks.first and len(cfgs) > 1:
        compare(cfgs)
    if diverged:
        raise Diverged(f"{', '.join(diverged)}: not trained to the end, as said above")


@record
def main() -> None:
    """Read the settings once, and train or evaluate."""
    if {*HELP, "--methods"} & {*sys.argv}:  # prints and ends; a pipe that takes no more, as `| head`, ends it too
        exit_with_its_code(lambda: read_command_line(__doc__ or ""))()
    with Stop() as stop:
        try:
            with printed_once(), advising():
                procedure, options = read_command_line(__doc__ or "")
            if options.at_a_time:
                procedure.train_at_once(__file__, options.at_a_time, stop)
            code = launch_on_every_gpu(__file__)
            if code is not None:
                sys.exit(code)
            with ranks(procedure.last.train_params.timeout_minutes) as place, advising(), never_exiting():
                for note in options.notes if place.first else ():
                    print(note, file=sys.stderr)
                if options.eval:
                    evaluate([*procedure.resolved().values()][-1], options.eval, place, options.tables)
                for cfgs, fresh in () if options.eval else procedure.to_train(options, place):
                    run(cfgs, place, stop, fresh=fresh)
                barrier()
        except ExpectedError as error:
            sys.exit(report(error))


if __name__ == "__main__":
    faulthandler.enable()  # a file that shrinks while it is mapped ends the process: this prints where
    main()
