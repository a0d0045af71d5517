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
README, MDISTILLER = "the authors' README", "MDistiller's README"
LISTINGS, DKD, AS_CIFAR = "public listings", "the DKD paper's tables", "weighted as on CIFAR-100"
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
DIMENSIONS = {  # of the features before each teacher's classifier
    "imagenet": {"resnet34": 512, "resnet50": 2048},
    "cifar100": {
        **dict.fromkeys(("resnet8", "resnet14", "resnet20", "resnet32", "resnet44", "resnet56", "resnet110"), 64),
        **{"resnet8x4": 256, "resnet32x4": 256, "wrn_16_1": 64, "wrn_40_1": 64, "wrn_16_2": 128, "wrn_40_2": 128},
        **dict.fromkeys(("vgg8", "vgg11", "vgg13", "vgg16", "vgg19", "resnet18", "resnet34"), 512),
        **{"resnet50": 2048, "resnet101": 2048, "resnet152": 2048},
        **{"mobilenetv2": 1280, "shufflenetv1": 960, "shufflenetv2": 1024},
    },
}
WARMUP = ((1, 1 / 20), (20, 1.0))  # a weight that grows over the first 20 epochs


def on_imagenet(by: str, *scores: float | None) -> Published:
    """In the order of the pairs."""
    return Published(by, {pair: score for pair, score in zip(PAIRS["imagenet"], scores) if score is not None})


def on_cifar100(by: str, *scores: float | None) -> Published:
    """In the order of the pairs."""
    return Published(by, {pair: score for pair, score in zip(PAIRS["cifar100"], scores) if score is not None})


def repdistiller(first: float, second: float | None = None) -> Published:
    """By RepDistiller's README, of ResNet-32x4 to ResNet-8x4 and of ResNet-50 to MobileNetV2."""
    return on_cifar100("RepDistiller's README", None, None, first, *(None,) * 6, second)


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


def embedding(data: str) -> Callable[[str], dict[str, HeadConfig]]:
    """A student's linear layer of as many outputs as its teacher's features have dimensions."""
    return lambda teacher: {
        "head": HeadConfig("embedding", {"dimensions": entry(DIMENSIONS[data], teacher, "teacher")})
    }


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


def released(terms: Terms, published: Published = UNPUBLISHED, remark: str = "") -> Setup:
    """MLKD on CIFAR-100 as the released code has it: 480 epochs from half the rate, all for both views."""
    return Setup(
        term("cross_entropy", 0.1, name="strong_cross_entropy", view="strong") | terms,
        published,
        remark,
        labels=0.1,
        epochs=480,
        rate=0.5,
    )
