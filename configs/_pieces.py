"""What the table of methods is written with: pairs, scores by pair, and terms that several entries share."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

from configs._method import ALONE, UNPUBLISHED, Published, Setup, Terms
from knowledge_distiller import Term
from models.heads import HeadConfig
from utils.config import entry

Ramp = tuple[tuple[float, float], ...]  # (epoch, factor)

# who published a score, and remarks on weights
README, MDISTILLER, REPDISTILLER = "the authors' README", "MDistiller's README", "RepDistiller's README"
LISTINGS, DKD, AS_CIFAR = "public listings", "the DKD paper's tables", "weighted as on CIFAR-100"
KDPP = "KD++'s README"
MDISTILLERS, AUTHORS = "the weight is MDistiller's", "the weight is the authors'"
COSTS = "their costs are by features of the training images, ours by the classifier"

PAIRS = {  # teacher, student
    "imagenet": (("resnet34", "resnet18"), ("resnet50", "timm/mobilenetv1_100")),
    "cifar100": (
        ("resnet56", "resnet20"),
        ("resnet110", "resnet32"),
        ("resnet32x4", "resnet8x4"),
        ("wrn_40_2", "wrn_16_2"),
        ("wrn_40_2", "wrn_40_1"),
        ("vgg13", "vgg8"),
        ("resnet32x4", "shufflenetv1"),
        ("wrn_40_2", "shufflenetv1"),
        ("vgg13", "mobilenetv2"),
        ("resnet50", "mobilenetv2"),
        ("resnet32x4", "shufflenetv2"),
        ("resnet32x4", "mobilenetv2"),
    ),
}
LIGHT = ("mobilenet", "shufflenet")  # how networks of CIFAR begin that learn at a lower rate
DIMENSIONS = {  # of the features before a network's classifier
    "imagenet": {"resnet18": 512, "resnet34": 512, "resnet50": 2048},
    "cifar100": {
        **dict.fromkeys(("resnet8", "resnet14", "resnet20", "resnet32", "resnet44", "resnet56", "resnet110"), 64),
        **{"resnet8x4": 256, "resnet32x4": 256, "wrn_16_1": 64, "wrn_40_1": 64, "wrn_16_2": 128, "wrn_40_2": 128},
        **dict.fromkeys(("vgg8", "vgg11", "vgg13", "vgg16", "vgg19", "resnet18", "resnet34"), 512),
        **{"resnet50": 2048, "resnet101": 2048, "resnet152": 2048},
        **{"mobilenetv2": 1280, "shufflenetv1": 960, "shufflenetv2": 1024},
    },
}
_REPDISTILLER: dict[str, tuple[float | None, ...]] = {  # in the order of the pairs
    "fitnet": (69.21, 71.06, 73.50, 73.58, 72.24, 71.02, 73.59, 73.73, 64.14, 63.16, 73.54),
    "at": (70.55, 72.31, 73.44, 74.08, 72.77, 71.43, 71.73, 73.32, 59.40, 58.58, 72.73),
    "sp": (69.67, 72.69, 72.94, 73.83, 72.43, 72.68, 73.48, 74.52, 66.30, 68.08, 74.56),
    "cc": (69.63, 71.48, 72.97, 73.56, 72.21, 70.71, 71.14, 71.38, 64.86, 65.43, 71.29),
    "vid": (70.38, 72.61, 73.09, 74.11, 73.30, 71.23, 73.38, 73.61, 65.56, 67.57, 73.40),
    "rkd": (69.61, 71.82, 71.90, 73.35, 72.22, 71.48, 72.28, 72.21, 64.52, 64.43, 73.21),
    "pkt": (70.34, 72.61, 73.64, 74.54, 73.45, 72.88, 74.10, 73.89, 67.13, 66.52, 74.69),
    "ab": (69.47, 70.98, 73.17, 72.50, 72.38, 70.94, 73.55, 73.34, 66.06, 67.20, 74.31),
    "ft": (69.84, 72.37, 72.86, 73.25, 71.59, 70.58, 71.75, 72.03, 61.78, 60.99, 72.50),
    "fsp": (69.95, 71.89, 72.62, 72.91, None, 70.23),
    "nst": (69.60, 71.96, 73.30, 73.68, 72.24, 71.53, 74.12, 74.89, 58.16, 64.96, 74.68),
    "crd": (71.16, 73.48, 75.51, 75.48, 74.14, 73.94, 75.11, 76.05, 69.73, 69.11, 75.65),
}
WARMUP = ((1, 1 / 20), (20, 1.0))  # a weight that grows over the first 20 epochs


def on_imagenet(by: str, *scores: float | None) -> Published:
    """In the order of the pairs."""
    return Published(by, {pair: score for pair, score in zip(PAIRS["imagenet"], scores) if score is not None})


def on_cifar100(by: str, *scores: float | None) -> Published:
    """In the order of the pairs."""
    return Published(by, {pair: score for pair, score in zip(PAIRS["cifar100"], scores) if score is not None})


def repdistiller(method: str) -> Published:
    """By RepDistiller's README."""
    return on_cifar100(REPDISTILLER, *_REPDISTILLER[method])


def readme(first: float) -> Published:
    """By the authors' README, of ResNet-32x4 to ResNet-8x4."""
    return on_cifar100(README, None, None, first)


def alone(by: str, **scores: float) -> Published:
    """Of students without a teacher, or of teachers."""
    return Published(by, {(ALONE, student): score for student, score in scores.items()})


def term(
    objective: str,
    weight: float = 1.0,
    *,
    name: str = "",
    teacher: str | tuple[str, ...] = "teacher",
    ramp: Ramp = (),
    view: Literal["weak", "strong"] = "weak",
    standardize: bool = False,
    **options: float | bool | str,
) -> Terms:
    """A term, called as its objective unless it has another name."""
    made = Term(objective, weight, teacher, options, ramp, view=view, standardize=standardize)
    return {name or objective: made}


def embedding(data: str) -> Callable[[str, str], dict[str, HeadConfig]]:
    """A student's linear layer to the dimensions of its teacher's features, where its own have others."""

    def settings(teacher: str, student: str) -> dict[str, HeadConfig]:
        dimensions = entry(DIMENSIONS[data], teacher, "teacher")
        if DIMENSIONS[data].get(student) == dimensions:
            return {}
        return {"head": HeadConfig("embedding", {"dimensions": dimensions})}

    return settings


def falling(start: int, end: int) -> Ramp:
    """A weight that falls to zero from one epoch to another with half a cosine; linear over each tenth of it."""
    return tuple((start + (end - start) * i / 10, round((1 + math.cos(math.pi * i / 10)) / 2, 4)) for i in range(11))


def wkd_l(weight: float, ramp: Ramp, *, temperature: float = 2.0, sharpness: float = 1.0) -> Terms:
    """WKD-L: the true class's part, and the distance among the others."""
    true_class = term("nkd", name="true_class", gamma=0.0)
    return true_class | term("wkd_l", weight, ramp=ramp, temperature=temperature, sharpness=sharpness)


def wkd_l_on_imagenet(teacher: str, _: str) -> Terms:
    """WKD-L with its weights there."""
    return wkd_l(30.0, falling(0, 100)) if teacher == "resnet34" else wkd_l(25.0, falling(0, 100), sharpness=2.0)


def kds(*temperatures: float, view: Literal["weak", "strong"] = "weak") -> Terms:
    """KD at several temperatures."""
    name = "strong_kd" if view == "strong" else "kd"
    return {f"{name}{heat:g}": Term("kd", 0.9, options={"temperature": heat}, view=view) for heat in temperatures}


def released(
    terms: Terms, published: Published = UNPUBLISHED, remark: str = "", rate: Callable[[str, str], float] | None = None
) -> Setup:
    """MLKD on CIFAR-100 as the released code has it: 480 epochs, all for both views, at rates of its files."""
    return Setup(
        term("cross_entropy", 0.1, name="strong_cross_entropy", view="strong") | terms,
        published,
        remark,
        labels=0.1,
        epochs=480,
        rate=rate or _rate_of_mlkd,
    )


def rate_of_mlkd_standardized(teacher: str, student: str) -> float:
    """Times the usual rate, on CIFAR-100, in the files of logit standardisation."""
    if not student.startswith(LIGHT):
        return 0.5
    return 0.1 if (teacher, student) == ("resnet32x4", "shufflenetv2") else 1.0


def _rate_of_mlkd(teacher: str, student: str) -> float:
    """Times the usual rate, on CIFAR-100, in the authors' files."""
    if not student.startswith(LIGHT):
        return 0.5
    return 1.0 if teacher == "resnet32x4" and student.startswith("shufflenet") else 0.25
