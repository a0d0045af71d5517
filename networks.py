"""What a recipe asks for, built: student, teachers and terms as one distiller; or one network to be evaluated."""

from __future__ import annotations

import io
from contextlib import redirect_stdout
from dataclasses import replace
from typing import TypeVar

import torch

from dataset.classes import check_splits
from dataset.loader import DataConfig, open_split
from dataset.store.samples import Samples
from knowledge_distiller import KnowledgeDistiller
from models.zoo import NetworkConfig, build_network
from recipe import OF_A_RUN, Recipe
from tasks import Task
from teachers import Live, build_teacher
from terms import features_of
from training.run_folder import RunFolder
from training.state import State
from utils.distributed import Ranks

Config = TypeVar("Config", bound=NetworkConfig)


def build_distiller(cfg: Recipe, train: Samples, ranks: Ranks) -> KnowledgeDistiller:
    """The student, the teachers that a term reads or whose classifier the student has, and the terms, on the device.

    Raises:
        UsageError: they do not go together, or a file is missing.
        DataError: a file of weights is damaged.
    """
    names, side, seed = tuple(train.classes), cfg.data.input_size, cfg.train_params.seed
    reads, reads_of = features_of(cfg.all_terms.values())
    wanted = {*reads_of, *cfg.student.head.made().takes}
    configs = {name: config for name, config in cfg.teachers.items() if name in wanted}
    torch.manual_seed(seed)
    teachers = {
        name: build_teacher(
            config, names, reads_of.get(name, ()), side, f"teachers.{name}", knows_all=_must_know_all(cfg)
        )
        for name, config in configs.items()
    }
    networks = {name: teacher.network for name, teacher in teachers.items()}
    torch.manual_seed(seed)  # a student starts alike whoever teaches it
    synced = cfg.train_params.sync_bn and ranks.world > 1
    student = build_network(
        cfg.student, len(names), reads, side, networks, new_classifier=True, sync_bn=synced, classes=names
    )
    student.classes = names if student.num_classes == len(names) else ()
    example = torch.zeros(2, 3, side, side, dtype=torch.uint8)
    distiller = KnowledgeDistiller(student, teachers, cfg.all_terms, example, torch.from_numpy(train.labels))
    return distiller.to(ranks.device).to(memory_format=_memory_format(cfg))


def build_evaluated(cfg: Recipe, config: NetworkConfig, what: str, val: Samples, ranks: Ranks) -> Live:
    """The network of ``config``, which messages call ``what``, for the classes of ``val``.

    Raises:
        UsageError: as `build_network`, or it knows other classes.
        DataError: a file of weights is damaged.
    """
    torch.manual_seed(cfg.train_params.seed)
    network = build_teacher(config, val.classes, side=cfg.data.input_size, key=what, knows_all=_must_know_all(cfg))
    return network.to(ranks.device).to(memory_format=_memory_format(cfg))


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
    return replace(network, weights="none") if network.weights.startswith(OF_A_RUN) else network


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


def _must_know_all(cfg: Recipe) -> bool:
    """Whether a teacher of some of the classes makes no sense, since these compete, but where each is by itself."""
    return cfg.made_task().logits != "sigmoid"


def _memory_format(cfg: Recipe) -> torch.memory_format:
    return torch.channels_last if cfg.train_params.channels_last else torch.preserve_format
