"""What a recipe asks for, built: student, teachers and terms as one distiller; or one network to be evaluated."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import replace
from functools import partial
from typing import TypeVar

import torch

from dataset.classes import check_learnable, check_splits
from dataset.loader import DataConfig, open_split
from dataset.store.samples import Samples
from knowledge_distiller import KnowledgeDistiller
from models.zoo import NetworkConfig, build_network
from recipe import OF_A_RUN, Recipe
from stored_teachers import stored_teacher
from tasks import Task
from teachers import Live, TeacherConfig, build_teacher
from terms import features_of
from training.run_folder import RunFolder
from training.state import State
from training.stored import Stored
from utils.distributed import Ranks
from utils.errors import UsageError, naming

Config = TypeVar("Config", bound=NetworkConfig)


def build_distiller(cfg: Recipe, train: Samples, ranks: Ranks) -> KnowledgeDistiller:
    """As `build_distillers`, of one recipe."""
    return build_distillers([cfg], train, ranks)[0]


def build_distillers(cfgs: Sequence[Recipe], train: Samples, ranks: Ranks) -> list[KnowledgeDistiller]:
    """Of each recipe the student, the teachers that a term reads or whose classifier the student has, and the terms, on
    the device. Teachers of one name, whose settings must be the same in all, are one.

    Raises:
        UsageError: they do not go together, or a file is missing.
        DataError: a file of weights is damaged.
    """
    teachers = build_teachers(cfgs, train)
    built = [_distiller(cfg, teachers, train, ranks) for cfg in cfgs]
    return [one.to(ranks.device).to(memory_format=memory_format_of(cfg)) for one, cfg in zip(built, cfgs)]


def build_teachers(cfgs: Sequence[Recipe], train: Samples) -> dict[str, Live | Stored]:
    """The teachers that the ``cfgs`` want, by name, each giving all that is read of it, for students of ``train``.

    Raises:
        UsageError, DataError: as `build_teacher` and `stored_teacher`.
    """
    names = {name: cfg for cfg in reversed(cfgs) for name in _wanted(cfg)}
    made: dict[str, Live | Stored] = {}
    for name in (one for cfg in cfgs for one in cfg.teachers if one in names):
        if name not in made:
            live = partial(live_teacher, cfgs, name, train)
            made[name] = stored_teacher(cfgs, name, train, live) if names[name].teachers[name].store else live()
    return made


def live_teacher(cfgs: Sequence[Recipe], name: str, train: Samples) -> Live:
    """The teacher called ``name``, giving what any of the ``cfgs`` reads of it.

    Raises:
        UsageError, DataError: as `build_teacher`.
    """
    reads = set().union(*(_wanted(cfg).get(name, set()) for cfg in cfgs))
    first = next(cfg for cfg in cfgs if name in cfg.teachers)
    torch.manual_seed(first.train_params.seed)  # alike whatever other teachers there are
    side, key = first.data.input_size, f"teachers.{name}"
    return build_teacher(first.teachers[name], train.classes, reads, side, key, knows_all=_compete(first))


def _wanted(cfg: Recipe) -> dict[str, set[str]]:
    """What a term reads of each teacher; nothing of one whose classifier the student has."""
    _, reads_of = features_of(cfg.all_terms.values())
    return {
        name: reads_of.get(name, set()) for name in cfg.teachers if name in {*reads_of, *cfg.student.head.made().takes}
    }


def _distiller(cfg: Recipe, built: Mapping[str, Live | Stored], train: Samples, ranks: Ranks) -> KnowledgeDistiller:
    """That of a recipe with the teachers of those that are ``built`` which it wants, on the CPU."""
    check_learnable(train, {name: term.objective for name, term in cfg.all_terms.items() if term.needs_labels})
    names, side = tuple(train.classes), cfg.data.input_size
    reads = features_of(cfg.all_terms.values())[0] | {*cfg.made_task().reads}
    teachers = {name: built[name] for name in _wanted(cfg)}
    networks = {name: teacher.network for name, teacher in teachers.items()}
    torch.manual_seed(cfg.train_params.seed)  # a student starts alike whoever teaches it
    synced = cfg.train_params.sync_bn and ranks.world > 1
    with naming("student"):
        student = build_network(
            cfg.student, len(names), reads, side, networks, new_classifier=True, sync_bn=synced, classes=names
        )
    student.classes = names if student.num_classes == len(names) else ()
    example = torch.zeros(2, 3, side, side, dtype=torch.uint8)
    labels = torch.from_numpy(train.labels)
    return KnowledgeDistiller(student, teachers, cfg.all_terms, example, labels, competing=_compete(cfg))


def build_evaluated(cfg: Recipe, config: NetworkConfig, what: str, val: Samples, ranks: Ranks) -> Live:
    """The network of ``config``, which messages call ``what``, for the classes of ``val``.

    Raises:
        UsageError: as `build_network`, or it knows other classes.
        DataError: a file of weights is damaged.
    """
    torch.manual_seed(cfg.train_params.seed)
    reads, side = cfg.made_task().reads, cfg.data.input_size
    network = build_teacher(config, val.classes, reads, side, key=what, knows_all=_compete(cfg))
    if not reads and not network.network.num_classes:
        raise UsageError(f"--eval {what}: {config.name} gives features alone, which task=features scores")
    return network.to(ranks.device).to(memory_format=memory_format_of(cfg))


def rehearse(cfg: Recipe) -> None:
    """Open the data of a run and build its networks and optimizers, without the weights of runs that come before it.

    What is wrong with it then shows before these are trained.

    Raises:
        UsageError, DataError: as the run itself would.
    """
    alone, task = Ranks(0, 1, torch.device("cpu")), cfg.made_task()
    teachers = {key: _untrained(one) for key, one in cfg.teachers.items()}
    cfg = replace(cfg, student=_untrained(cfg.student), teachers=teachers)
    train, val = open_splits(cfg.data, task)
    check_splits(train, val)
    with redirect_stdout(io.StringIO()):  # the run itself will print it
        State(build_distiller(cfg, train, alone), cfg.phases, cfg.train_params, task, RunFolder(cfg.folder), alone)


def _untrained(network: Config) -> Config:
    if not network.weights.startswith(OF_A_RUN):
        return network
    network = replace(network, weights="none")
    return replace(network, store="") if isinstance(network, TeacherConfig) else network


def open_splits(data: DataConfig, task: Task) -> tuple[Samples, Samples]:
    """Training and validation samples.

    Raises:
        UsageError: there are none, or they are not of the task.
        DataError: they are damaged.
    """
    train = open_split(data, data.train_split, data.train_data_type)
    val = open_split(data, data.val_split, data.val_data_type)
    for samples, split in ((train, data.train_split), (val, data.val_split)):
        task.check(samples.labels, split)
    return train, val


def _compete(cfg: Recipe) -> bool:
    """Whether classes do; else each is by itself, and a teacher of some of them makes sense."""
    return cfg.made_task().logits != "sigmoid"


def memory_format_of(cfg: Recipe) -> torch.memory_format:
    """How convolutions lie in memory."""
    return torch.channels_last if cfg.train_params.channels_last else torch.preserve_format
