"""Feature mimicking by hashing (Wang et al., TPAMI 2021, arXiv 2011.01424), in the authors' recipe."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from configs._method import ALONE
from configs._multi_label import DIMENSIONS, PLACES, Row, network, term
from dataset.loader import DataConfig
from knowledge_distiller import Term
from models.heads import HeadConfig
from models.zoo import NetworkConfig
from recipe import Recipe
from teachers import teacher_of
from training.loop import TrainConfig
from training.optimizer import OptimConfig
from training.phases import Phase
from utils.config import entry

POOLING = {"": "average", "gmp": "max", "gwp": "mixed"}  # by the end of a name, such as resnet101_gmp
METHODS = {  # the objective's options
    "lsh": {"feature_distance": "none"},
    "lshl2": {},
    "l2": {"hash_distance": "none"},
}
LEARNED = "student.pooled_classifier.embedding"


class Weights(NamedTuple):
    """Weights of a student's mimicking, and its hashes."""

    lsh: float
    lshl2: float
    l2: float
    hashes: int


class Setup(NamedTuple):
    """What a data set has of its own.

    Attributes:
        batch_size: images a step.
        weight_decay: of all.
        usual: weights.
        students: weights of those with others.
        embedded: the student that has an embedding although its teacher's features have its dimensions.
        epochs: of networks alone, where they are not 60.
        rows: the published table.
    """

    batch_size: int
    weight_decay: float
    usual: Weights
    students: dict[str, Weights]
    embedded: str
    epochs: dict[str, int]
    rows: tuple[Row, ...]


def _row(student: str, teacher: str, scores: str = "", method: str = "lshl2") -> Row:
    return Row({"student": student, "teacher": teacher, "method": method}, scores)


def _alone(student: str, scores: str = "") -> Row:
    return Row({"student": student, "method": ALONE}, scores)


SETUPS = {
    "voc": Setup(
        16,
        1e-5,
        Weights(0.5, 0.5, 1.0, 8192),
        {"resnet18": Weights(0.5, 0.5, 1.0, 2048), "resnet50": Weights(0.5, 0.5, 0.5, 8192)},
        "resnet18",
        {},
        (
            _alone("resnet34", "91.69"),
            _alone("resnet101", "93.27"),
            *(_alone(one) for one in ("resnet18", "resnet50", "mobilenet_v2", "vgg19_bn")),
            *(_alone(f"resnet101_{pool}") for pool in ("gmp", "gwp")),
            *(_row("resnet18", "resnet34", method=method) for method in METHODS),
            _row("resnet50", "resnet101", "93.17 (from a distilled ImageNet ResNet-50, 77.57, and no first phase)"),
            *(_row("resnet50", "resnet101", method=method) for method in ("lsh", "l2")),
            _row("mobilenet_v2", "resnet101", "90.14"),
            *(_row("mobilenet_v2", "resnet101", method=method) for method in ("lsh", "l2", "kd")),
        ),
    ),
    "coco": Setup(
        32,
        1e-4,
        Weights(3.0, 3.0, 3.0, 2048),
        {},
        "resnet50",
        {"resnet101_gmp": 30, "resnet101_gwp": 30},
        (
            _alone("resnet101", "77.67"),
            _alone("resnet101_gmp", "79.57"),
            *(_alone(one) for one in ("resnet50", "mobilenet_v2", "resnet50_gmp", "mobilenet_v2_gmp", "resnet101_gwp")),
            _row("resnet50", "resnet101", "77.16"),
            _row("mobilenet_v2", "resnet101", "73.73"),
            *(
                _row(one, "resnet101", method=method)
                for one in ("resnet50", "mobilenet_v2")
                for method in ("lsh", "l2")
            ),
            *(_row(one, "resnet101_gmp") for one in ("resnet101", "resnet101_gmp", "resnet50_gmp", "mobilenet_v2_gmp")),
        ),
    ),
}


def lshfm(data: str, student: str, teacher: str, method: str, weights: str) -> dict[str, Recipe]:
    """A teacher, which a run of the same name trains once for all students; then, where the student's features have
    other dimensions, an embedding that brings them to the teacher's is trained alone; then the student. So have it
    ResNet-18 on VOC and ResNet-50 on COCO, whose features have their teacher's dimensions.

    SGD, 60 epochs each on a cosine, 30 of ResNet-101 with other pooling on COCO. The embedding is trained by the
    student's method, for `kd` by distances, with as many hashes as the student, which the authors' files leave at
    65,536 for ResNet-50 on COCO; it is multiplied into the classifier of student.safetensors.
    """
    setup = SETUPS[data]
    named, key = (student, "student") if method == ALONE else (teacher, "teacher")
    optim = OptimConfig(init_lr=0.01, schedule="cosine", nesterov=False, weight_decay=setup.weight_decay)
    alone = Recipe(
        name=f"{data}_{named}_lshfm",
        task="multi_label",
        task_options={"average_precision": "voc" if data == "voc" else "positives"},
        data=DataConfig(
            data_path=PLACES[data],
            batch_size=setup.batch_size,
            input_size=448,
            type_of_data_aug="squash",
            val_crop="squash",
            color_jitter=0.3,
            val_batch_size=32,
        ),
        student=_network(named, key, weights),
        teachers={},
        phases={"training": Phase(setup.epochs.get(named, 60), term("bce"), optim)},
        train_params=TrainConfig(amp="bf16"),
    )
    if method == ALONE:
        return {"training": alone}
    pair = {"student": student, "teacher": teacher}
    sizes = [entry(DIMENSIONS, one.partition("_g")[0], side) for side, one in pair.items()]
    mimics = _mimicking(data, student, method)
    phases = {"distillation": Phase(60, term("bce") | mimics, optim)}
    if sizes[0] != sizes[1] or student == setup.embedded:
        (aligned,) = _mimicking(data, student, "l2" if method == "kd" else method).values()
        first = {"align": replace(aligned, weight=1.0)}
        phases = {"alignment": Phase(60, first, optim, trainable=(LEARNED,)), **phases}
    second = replace(
        alone,
        name=f"{data}_{student}_{method}_{teacher}",
        student=_network(student, "student", weights, sizes[1] if len(phases) > 1 else 0),
        teachers={"teacher": replace(teacher_of(alone.student), weights="run:teacher")},
        phases=phases,
    )
    return {"teacher": alone, "distillation": second}


def _mimicking(data: str, student: str, method: str) -> dict[str, Term]:
    if method == "kd":
        return term("kd", 0.001, temperature=4.0)
    setup = SETUPS[data]
    chosen = setup.students.get(student, setup.usual)
    options = entry(METHODS, method, "method")
    return term("lshfm", getattr(chosen, method), hashes=chosen.hashes, bias="median", **options)


def _network(name: str, key: str, weights: str, dimensions: int = 0) -> NetworkConfig:
    plain, _, pool = name.partition("_g")
    kind = entry(POOLING, f"g{pool}" if pool else "", key)
    entry(DIMENSIONS, plain, key)
    dropout = 0.2 if plain == "mobilenet_v2" else 0.0
    head = HeadConfig("pooling", {"kind": kind, "dropout": dropout, "dimensions": dimensions})
    return network(plain, key, weights, head, scaling={})
