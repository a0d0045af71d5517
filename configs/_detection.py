"""What the configs of detection are written with: solvers, methods, and a teacher trained before its student."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal, NamedTuple

import torch
import torchvision
from torch import nn

from configs._method import ALONE, Terms
from configs._multi_label import Row, term
from dataset.loader import DataConfig
from knowledge_distiller import Term
from models.detectors import DetectorConfig, is_detector
from models.detectors.names import Named, parsed
from models.zoo import NetworkConfig
from recipe import Recipe
from teachers import teacher_of
from training.optimizer import OptimConfig
from training.phases import Phase
from utils.config import entry

PLACES = {"coco": "PATH/TO/coco17", "voc": "PATH/TO/voc0712"}  # packed by dataset/NAME2lmdb.py --boxes
IMAGES = {"coco": 117_266, "voc": 16_551}  # of the training split, those without objects left out
TASKS = {"coco": {}, "voc": {"scores": "voc", "difficult": "remove"}}  # its options
_TWO_STAGE, _ONE_STAGE = ("fasterrcnn", "maskrcnn"), ("retinanet", "fcos")
LOSSES = {  # of the detectors, each a term
    **dict.fromkeys(_TWO_STAGE, ("classes", "boxes", "objectness", "proposals")),
    "retinanet": ("classes", "boxes"),
    "fcos": ("classes", "boxes", "centerness"),
}


class Solver(NamedTuple):
    """How a paper trains, by SGD with momentum 0.9 and weight decay 1e-4.

    Attributes:
        batch_size: images a step.
        rates: of two-stage detectors, and of one-stage ones.
        epochs: of teacher and student each.
        milestones: epochs after which the rate is divided by ten.
        warmup: steps.
        short_sides: pixels.
        norms: what batch norms keep.
        before_nms: proposals of a level, in training and in evaluation.
        after_nms: proposals of an image, likewise.
    """

    batch_size: int
    rates: tuple[float, float]
    epochs: int
    milestones: tuple[int, ...]
    warmup: int
    short_sides: tuple[int, ...]
    norms: Literal["statistics", "all"]
    before_nms: tuple[int, int]
    after_nms: tuple[int, int]


_ONCE = Solver(16, (0.02, 0.01), 12, (8, 11), 500, (800,), "statistics", (2000, 1000), (1000, 1000))
SOLVERS = {
    # 180,000 steps with x 0.1 after 120,000 and 160,000, in whole epochs of COCO; one-stage detectors have no
    # published rate there
    "mdistiller": Solver(
        8, (0.01, 0.005), 12, (8, 11), 1000, tuple(range(640, 801, 32)), "all", (2000, 1000), (1000, 1000)
    ),
    "lshfm": Solver(
        8, (0.01, 0.005), 24, (18, 22), 1000, tuple(range(480, 801, 32)), "all", (4000, 2000), (2000, 1000)
    ),
    "mmdetection_1x": _ONCE,
    "mmdetection_2x": _ONCE._replace(epochs=24, milestones=(16, 22)),
}


class Pair(NamedTuple):
    """A student and its teacher."""

    student: Named
    teacher: Named


class Method(NamedTuple):
    """A method of distillation.

    Attributes:
        solver: of its paper.
        terms: of a pair of detectors.
        on: the students that it serves.
        clip: longest gradient norm of a step.
    """

    solver: str
    terms: Callable[[Pair], Terms]
    on: tuple[str, ...] = tuple(LOSSES)
    clip: float | None = None


_REVIEW = {"resnet18": 1.2, "mobilenet_v2": 2.0}  # 1 for others
_HASHES = 4096  # 4 D of the box head, as in the scripts of the authors
_DISTANCES = {"lsh": {"feature_distance": "none"}, "lshl2": {}, "l2": {"hash_distance": "none"}}
_OF_VGG = {"lsh": 6.0, "lshl2": 8.0}  # RetinaNet; 7 for the rest
_OF_RETINANET = {"attention": 5e-4}  # the authors' files; the paper has 1e-3
_OF_FCOS = {"temperature": 0.8, "foreground": 1.6e-3, "background": 8e-4, "attention": 8e-4, "relation": 8e-6}
_OF_TWO_STAGE = {"temperature": 0.5, "foreground": 5e-5, "background": 2.5e-5, "attention": 5e-5, "relation": 5e-7}
_OF_FGD = {"retinanet": _OF_RETINANET, "fcos": _OF_FCOS, **dict.fromkeys(_TWO_STAGE, _OF_TWO_STAGE)}
_CONVOLVED = tuple((f"fpn{level}", f"fpn{level}") for level in range(2, 6))  # levels but the one that is subsampled


def _dkd(pair: Pair) -> Terms:
    return term("dkd", alpha=1.0, beta=0.25, temperature=1.0)


def _reviewkd(pair: Pair) -> Terms:
    return term("reviewkd_levels", _REVIEW.get(pair.student.backbone, 1.0), name="reviewkd")


def _pkd(pair: Pair) -> Terms:
    ours, theirs = (2 if one.two_stage else 3 for one in pair)  # the finest level
    by_number = tuple((f"fpn{ours + number}", f"fpn{theirs + number}") for number in range(4))
    stages = () if any(one.plain or one.is_mobile for one in pair) else by_number
    return {"pkd": Term("pkd", 6.0 if pair.teacher.two_stage else 10.0, stages=stages)}


def _mgd(pair: Pair) -> Terms:
    two_stage = pair.student.two_stage
    return _on_levels(pair, "mgd", 5e-7 if two_stage else 2e-5, masked=0.45 if two_stage else 0.65)


def _fgd(pair: Pair) -> Terms:
    return _on_levels(pair, "fgd", **_OF_FGD[pair.student.detector])


def _crosskd(pair: Pair) -> Terms:
    if pair.student.detector == "fcos":
        return term("crosskd", 0.4, box_weight=1.875)  # 0.4 and 0.75
    return term("crosskd")


def _pseudo_boxes(pair: Pair) -> Terms:
    # STAC has 0.9 for Faster R-CNN; nothing is published for one-stage teachers, whose scores are lower
    return term("pseudo_boxes", least_score=0.9 if pair.teacher.two_stage else 0.5)


def _lshfm(kind: str) -> Callable[[Pair], Terms]:
    def terms(pair: Pair) -> Terms:
        if pair.student.two_stage:
            return term("lshfm", 7.0, hashes=_HASHES, **_DISTANCES[kind])
        weight = _OF_VGG.get(kind, 7.0) if pair.student.backbone.startswith("vgg") else 7.0
        return term("lshfm_windows", weight, name="lshfm", hashes=_HASHES, **_DISTANCES[kind])

    return terms


METHODS = {
    "kd": Method("mdistiller", lambda pair: term("kd", temperature=1.0), _TWO_STAGE),
    "dkd": Method("mdistiller", _dkd, _TWO_STAGE),
    "reviewkd": Method("mdistiller", _reviewkd),
    "reviewdkd": Method("mdistiller", lambda pair: _dkd(pair) | _reviewkd(pair), _TWO_STAGE),
    **{kind: Method("lshfm", _lshfm(kind)) for kind in _DISTANCES},
    "pkd": Method("mmdetection_2x", _pkd),
    "cwd": Method("mmdetection_1x", lambda pair: term("cwd", 10.0, temperature=1.0)),
    "mgd": Method("mmdetection_2x", _mgd, clip=35.0),
    "fgd": Method("mmdetection_2x", _fgd, clip=35.0),
    "crosskd": Method("mmdetection_2x", _crosskd, _ONE_STAGE),
    "crosskd_pkd": Method("mmdetection_2x", lambda pair: _crosskd(pair) | term("pkd", 2.0), _ONE_STAGE),
    "pseudo_boxes": Method("mmdetection_1x", _pseudo_boxes),  # STAC's own is for a tenth of COCO's labels and less
}


def detection(
    data: str, student: str, teacher: str, method: str, detector: str, neck: str, solver: str, weights: str
) -> dict[str, Recipe]:
    """A teacher, which a run of the same name trains once for all students of a solver; then the student.

    Args:
        data: coco or voc.
        student: its backbone, or a detector's whole name.
        teacher: likewise.
        method: none trains the student alone.
        detector: what backbones are put into.
        neck: what is behind them.
        solver: that of the method's paper when empty; on VOC lshfm.
        weights: of the backbone, before training.
    """
    pair = Pair(*(parsed(one if is_detector(one) else f"{detector}_{one}_{neck}") for one in (student, teacher)))
    chosen = None if method == ALONE else entry(_methods(pair.student), method, "method")
    usual = chosen.solver if chosen else "mdistiller" if pair.student.two_stage else "mmdetection_2x"
    solver = solver or ("lshfm" if data == "voc" else usual)
    if chosen is None:
        return {"training": _alone(data, pair.student, solver, weights)}
    first, last = _alone(data, pair.teacher, solver, weights), _alone(data, pair.student, solver, weights)
    phase = _with(chosen, pair, last.last)
    distilled = replace(
        last,
        name=f"{data}_{pair.student.name}_{method}_{teacher}_{solver}",
        teachers={"teacher": replace(teacher_of(first.student), weights="run:teacher")},
        phases={"distillation": phase},
    )
    return {"teacher": first, "distillation": distilled}


def trainable(named: Named) -> tuple[str, ...]:
    """What of a detector is trained: all but the stem and the first stage of a ResNet, or the first two blocks of a
    VGG, as torchvision, Detectron2, MMDetection and LSHFM have it; of others, such as MobileNets, everything."""
    if named.is_resnet:
        layers = ["layer2", "layer3"] if named.neck == "c4" else ["layer2", "layer3", "layer4"]
    elif named.backbone.startswith("vgg"):
        layers = _behind_second_block(named.backbone)
    else:
        return ()
    body = tuple(f"student.backbone.body.{layer}" for layer in layers)
    pyramid = () if named.plain else ("student.backbone.fpn",)
    return (*body, *pyramid, *(("student.rpn", "student.roi_heads") if named.two_stage else ("student.head",)))


def row(score: str = "", **overrides: str) -> Row:
    """A row of a table, with its published ``score``."""
    return Row(overrides, score)


def _methods(student: Named) -> dict[str, Method]:
    """Those that serve a detector."""
    return {name: method for name, method in METHODS.items() if student.detector in method.on}


def _alone(data: str, named: Named, solver: str, weights: str) -> Recipe:
    """The training of a detector without a teacher."""
    chosen = entry(SOLVERS, solver, "solver")
    fcos = solver.startswith("mmdetection") and named.detector == "fcos"
    settings = DetectorConfig()
    if named.two_stage:
        settings = DetectorConfig(proposals_before_nms=chosen.before_nms, proposals_after_nms=chosen.after_nms)
    optim = OptimConfig(
        init_lr=chosen.rates[0 if named.two_stage else 1],
        milestones=chosen.milestones,
        warmup_epochs=round(chosen.warmup * chosen.batch_size / IMAGES[data], 3),
        nesterov=False,
        weight_decay=1e-4,
        grad_clip=35.0 if fcos else None,
    )
    terms = {part: Term("detection", options={"part": part}) for part in LOSSES[named.detector]}
    norms = "all" if fcos else chosen.norms
    return Recipe(
        name=f"{data}_{named.name}_{solver}",
        task="detection",
        task_options=dict(TASKS[data]),
        data=DataConfig(
            data_path=PLACES[data],
            batch_size=chosen.batch_size,
            type_of_data_aug="short_side",
            short_sides=(640, 800) if fcos else chosen.short_sides,
            val_crop="short_side",
            val_resize=800,
            val_batch_size=4,
        ),
        student=NetworkConfig(named.name, weights, detector=settings),
        teachers={},
        phases={"training": Phase(chosen.epochs, terms, optim, trainable(named), norms)},
    )


def _with(method: Method, pair: Pair, alone: Phase) -> Phase:
    """The phase with the method's terms."""
    terms = method.terms(pair)
    optim = replace(alone.optim, grad_clip=alone.optim.grad_clip or method.clip)
    trained = (*alone.trainable, "terms") if alone.trainable else ()
    return replace(alone, terms=alone.terms | terms, optim=optim, trainable=trained)


def _on_levels(pair: Pair, objective: str, weight: float = 1.0, **options: float | bool | str) -> Terms:
    """A term on the pyramid; of two two-stage detectors without the level that is subsampled from the one before."""
    stages = _CONVOLVED if all(one.two_stage and not one.plain for one in pair) else ()
    return {objective: Term(objective, weight, options=options, stages=stages)}


def _behind_second_block(vgg: str) -> list[str]:
    """Layers of a VGG with parameters, behind its second pooling."""
    with torch.device("meta"):
        features = torchvision.models.get_model(vgg, weights=None).features
    pools = [number for number, layer in enumerate(features) if isinstance(layer, nn.MaxPool2d)]
    return [str(number) for number, layer in enumerate(features) if number > pools[1] and [*layer.parameters()]]
