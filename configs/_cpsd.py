"""Complementary parallel self-distillation (Xu et al., IJCAI 2022, arXiv 2205.10986), in the authors' recipe.

The classes are divided by two partitions, one that puts classes together that occur together (CGP), one that does not
(DGP). Each part has a teacher, of the student's own kind, that learns its classes alone; the student learns the targets
and the logits of all, merged by partition.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from configs._method import ALONE
from configs._multi_label import PLACES, Row, network, term
from dataset.loader import DataConfig
from knowledge_distiller import Term
from models.heads import HeadConfig
from models.zoo import NetworkConfig
from partition import Partition, read_partition
from recipe import Recipe
from teachers import TeacherConfig, teacher_of
from training.loop import TrainConfig
from training.manifest import read_manifest
from training.optimizer import OptimConfig
from training.phases import Phase
from utils.config import entry
from utils.errors import UsageError
from utils.text import first_few

MODELS = {  # backbone, what stands behind it
    "resnet101": ("resnet101", HeadConfig()),
    "resnet101_tf": ("resnet101", HeadConfig("label_tokens")),
    "q2l_resnet101": ("resnet101", HeadConfig("query2label")),
    "tresnet_l": ("tresnet_l", HeadConfig()),
    "resnext50_swsl": ("resnext50_swsl", HeadConfig()),
}
METRICS: dict[str, dict[str, Term]] = {
    "mse": term("squared_error", reduction="sum"),
    "kl": term("kd", temperature=4.0, reduction="sum"),
}
HARD = term("asymmetric")


def _rows(*scores: tuple[str, str, str, str]) -> tuple[Row, ...]:
    """Of (model, side of the images, scores alone, scores with CPSD)."""
    return tuple(
        Row({"model": model, "size": size, **more}, score)
        for model, size, alone, distilled in scores
        for more, score in (({"metric": ALONE}, alone), ({}, distilled))
    )


ROWS = {
    "coco": _rows(
        ("resnet101", "448", "81.6 / 76.4 / 80.0", "83.1 / 78.2 / 80.9"),
        ("resnet101_tf", "448", "84.3 / 78.7 / 81.0", "85.2 / 79.9 / 81.9"),
        ("q2l_resnet101", "448", "84.0 / 78.8 / 81.0", "84.9 / 79.2 / 81.4"),
        ("tresnet_l", "448", "86.2 / 81.1 / 82.9", "87.3 / 82.1 / 83.7"),
        ("resnext50_swsl", "448", "86.7 / 81.6 / 83.5", "87.7 / 82.5 / 84.1"),
        ("resnet101_tf", "576", "85.9 / 80.3 / 82.4", "86.7 / 81.2 / 82.9"),
    ),
    "nus": _rows(
        ("resnet101_tf", "448", "64.1 / 62.8 / 74.9", "65.8 / 64.0 / 75.3"),
        ("tresnet_l", "448", "64.7 / 63.7 / 75.0", "66.5 / 64.6 / 75.5"),
    ),
}


def cpsd(
    data: str,
    model: str,
    size: str,
    cgp: str,
    dgp: str,
    metric: str,
    alpha: str,
    manifest: str,
    vectors: str,
    weights: str,
    classes: Sequence[str] | None,
) -> dict[str, Recipe]:
    """The teachers of all parts, and the student; the student alone where a manifest has the teachers.

    Adam with weight decay in the gradient, but on biases and norms, one cycle of 80 epochs, and a moving average; the
    better of both is kept.
    """
    backbone, head = entry(MODELS, model, "model")
    if vectors:
        head = replace(head, options={**head.options, "vectors": vectors})
    side = int(_number(size, "size"))
    if str(side) != size:
        raise UsageError(f"size={size}: a whole number of pixels is expected")
    optim = OptimConfig(
        optimizer="adam",
        init_lr=1e-4,
        weight_decay=1e-4,
        decay_norm_and_bias=False,
        schedule="onecycle",
        pct_start=0.1,
    )
    alone = Recipe(
        name=f"{data}_{model}_{size}",
        task="multi_label",
        task_options={"threshold": 0.8},
        data=DataConfig(
            data_path=PLACES[data],
            batch_size=24,
            input_size=side,
            type_of_data_aug="squash",
            val_crop="squash",
            flip=False,
            cutout=0.5,
            randaugment=True,
            val_batch_size=24,
        ),
        student=network(backbone, "model", weights, head),
        teachers={},
        phases={"training": Phase(80, HARD, optim)},
        train_params=TrainConfig(amp="bf16", ema_decay=0.9997),
    )
    if metric == ALONE:
        return {"training": alone}
    share = _number(alpha, "alpha")
    if not 0 <= share <= 1:
        raise UsageError(f"alpha={alpha}: from 0 to 1")
    files = {key: Path(path) for key, path in (("cgp", cgp), ("dgp", dgp)) if path}
    parts = {key: (path, read_partition(path, classes)) for key, path in files.items()}
    if not parts:
        raise UsageError("cgp=FILE and dgp=FILE: name one or both; python -m partition writes them")
    teachers: dict[str, Recipe] = {}
    terms = {name: replace(one, weight=0.5) for name, one in HARD.items()}
    (compared,) = entry(METRICS, metric, "metric").values()
    for key, factor in (("cgp", share), ("dgp", 1 - share)):
        if key in parts:
            path, made = parts[key]
            names = {f"{key}{number}": part for number, part in enumerate(made.parts)}
            terms[key] = replace(compared, weight=0.5 * factor, teacher=tuple(names))
            for number, (name, part) in enumerate(names.items()):
                own = replace(alone, name=f"{alone.name}_{path.stem}_{number}", data=replace(alone.data, classes=part))
                teachers[name] = own
    if manifest:
        given = _from_manifest(Path(manifest), alone.student, {key: made for key, (_, made) in parts.items()})
    else:
        given = {name: _teacher(alone.student, f"run:{name}", one.data.classes) for name, one in teachers.items()}
    last = replace(
        alone,
        name=f"{alone.name}_cpsd_{metric}{alpha}_{'_'.join(path.stem for path, _ in parts.values())}",
        teachers=given,
        phases={"distillation": Phase(80, terms, replace(optim, init_lr=1e-5))},
    )
    return {**({} if manifest else teachers), "distillation": last}


def _from_manifest(path: Path, network: NetworkConfig, partitions: dict[str, Partition]) -> dict[str, TeacherConfig]:
    """The teachers of all parts out of a manifest, by the classes that each knows.

    Raises:
        UsageError: a part has no trained teacher there; or one there is of other classes, where none fits.
    """
    *parts, _student = read_manifest(path).items()
    rows = {name: row for name, row in parts if row["state"] == "trained" and "weights" in row}
    found: dict[str, TeacherConfig] = {}
    for key, made in partitions.items():
        for number, part in enumerate(made.parts):
            fitting = [row for row in rows.values() if set(row["classes"]) == set(part)]
            if not fitting:
                known = [{*one} for each in partitions.values() for one in each.parts]
                foreign = [name for name, row in rows.items() if {*row["classes"]} not in known]
                others = f"; of classes that are no part of it: {first_few(foreign)}" if foreign else ""
                raise UsageError(f"{path}: no trained teacher of {key} part {number} ({first_few(part)}){others}")
            found[f"{key}{number}"] = _teacher(network, fitting[0]["weights"], tuple(fitting[0]["classes"]))
    return found


def _teacher(network: NetworkConfig, weights: str, classes: tuple[str, ...]) -> TeacherConfig:
    return replace(teacher_of(network), weights=weights, classes=classes)


def _number(text: str, key: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise UsageError(f"{key}={text}: a number is expected")
    return number
