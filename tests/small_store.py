"""A teacher of the digits with a store, a student, and their loader, without the entry script."""

from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from small_run import words

from dataset.loader import TrainLoader, open_split
from knowledge_distiller import Term
from models.zoo import build_network
from networks import live_teacher
from procedure import read_procedure
from stored.layouts import LayoutConfig
from stored_teachers import stored_teacher
from teachers import TeacherConfig

CPU = torch.device("cpu")
TERMS = {"cross_entropy": Term("cross_entropy"), "kd": Term("kd", 0.9)}


def weights(folder):
    """A file of weights for a ResNet-20 of ten classes."""
    torch.manual_seed(5)
    network = build_network(TeacherConfig("cifar_resnet20"), 10)
    path = Path(folder) / "teacher.pth"
    torch.save(network.network.state_dict(), path)
    return path


def recipe(digits, folder, terms=TERMS, layout=None, teacher=None, **data):
    """Three epochs of batches of twenty; a store in ``folder``."""
    _, *given = words(digits, folder / "runs")
    cfg = read_procedure([Path(given[0])], [], given[1:], "", {}).last
    path = folder / "teacher.pth"
    config = TeacherConfig(
        "cifar_resnet20",
        str(path if path.exists() else weights(folder)),
        expect=0.0,
        store=str(folder / "store"),
        layout=layout or LayoutConfig("prior", k=4, views=2),
        **(teacher or {}),
    )
    phases = {name: replace(phase, terms=terms) for name, phase in cfg.phases.items()}
    return replace(cfg, teachers={"teacher": config}, phases=phases, data=replace(cfg.data, **data))


class Small:
    """The parts of a run of ``cfg`` that a store has to do with."""

    def __init__(self, cfg, ahead=False):
        self.cfg = cfg
        self.train = open_split(cfg.data, "train", "lmdb")
        targets = cfg.made_task().targets(self.train.classes)
        self.loader = TrainLoader(self.train, cfg.data, cfg.train_params.seed, 0, 1, CPU, targets)
        live = partial(live_teacher, [cfg], "teacher", self.train)
        self.stored = stored_teacher([cfg], "teacher", self.train, live, ahead=ahead)
        self.precision = nullcontext

    def close(self):
        self.loader.close()
        self.train.close()


def files(folder):
    """The content of every file of a store."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
