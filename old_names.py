"""What older versions called settings and configs: one table for the command line, config.json and config files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from utils.renamed import Renamed, converted


def _embedding(network: str) -> Callable[[int | None], dict[str, Any]]:
    head = f"{network}.head"
    return lambda width: {f"{head}.name": "embedding", f"{head}.options.dimensions": width} if width is not None else {}


def _reused(network: str) -> Callable[[str | None], dict[str, Any]]:
    head = f"{network}.head"

    def head_of(teacher: str | None) -> dict[str, Any]:
        other = {f"{head}.options.teacher": teacher} if teacher != "teacher" else {}
        return {f"{head}.name": "reused", **other} if teacher is not None else {}

    return head_of


def _view(strong: bool) -> dict[str, Any]:
    return {"phases.*.terms.*.view": "strong" if strong else "weak"}


_HEAD = 'write head=HeadConfig("embedding", {"dimensions": N}) or head=HeadConfig("reused"), from models.heads'
_TEACHER = "write TeacherConfig, from teachers, with batch_statistics and expect"
_PHASE = 'phases={"distillation": Phase(epochs, terms, optim, trainable)}, with Phase from training.phases'
SETTINGS = (
    Renamed("first", "phases", f"write phases before the last one: {_PHASE}"),
    Renamed("train_params.epochs", "phases.<last>.epochs", f"write {_PHASE}"),
    Renamed("terms", "phases.<last>.terms", f"write {_PHASE}"),
    Renamed("optim", "phases.<last>.optim", f"write {_PHASE}"),
    Renamed("phases.*.optim.moves", "phases.*.trainable", f"trainable of its phase: {_PHASE}"),
    Renamed("phases.*.terms.*.strong", _view, 'write view="strong"', bool),
    Renamed("student.embedding", _embedding("student"), _HEAD, int | None, {"student.head.name": "own"}),
    Renamed("student.reuses", _reused("student"), _HEAD, str | None, {"student.head.name": "own"}),
    Renamed("student.batch_statistics", lambda _: {}, _TEACHER),
    Renamed("student.expect_top1", lambda _: {}, _TEACHER),
    Renamed("teachers.*.embedding", _embedding("teachers.*"), _HEAD, int | None, {"teachers.*.head.name": "own"}),
    Renamed("teachers.*.reuses", _reused("teachers.*"), _HEAD, str | None, {"teachers.*.head.name": "own"}),
    Renamed("teachers.*.expect_top1", "teachers.*.expect", _TEACHER),
)
FILES = {  # the end of a path -> what to give in its place
    r"configs/cifar100/teacher\.py": "configs/cifar100.py method=none",
    r"configs/(imagenet|cifar100)/([a-z]\w*)\.py": r"configs/\1.py method=\2",
    r"configs/digits_(teacher|student|wsld)\.py": r"configs/digits.py method=\1",
    r"configs/imagenet_plain(\.py)?": "configs/imagenet.py method=none",
    r"configs/imagenet_resnet50_mobilenetv1\.py": "imagenet_train_cfg.py name=mobilenetv1_wsld "
    "student.name=timm/mobilenetv1_100 teachers.teacher.name=resnet50",
    r"training/stages\.py": "training/phases.py, whose Phase takes the place of Stage",
}


def as_today(values: Mapping[str, Any], last: str = "distillation") -> dict[str, Any]:
    """The JSON of a run's settings, config.json, as this version writes it.

    Args:
        values: written by any version.
        last: what the last phase is called, which had no name once.
    """
    return converted(values, SETTINGS, last)
