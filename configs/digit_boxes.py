"""Handwritten digits in boxes: distilled detectors from end to end, in the demo's small way.

Command    python -m demo.detection
Hardware   2 CPU cores, five minutes
Runs       a Faster R-CNN on ResNet-20 with a pyramid, which teaches; that on ResNet-8 alone, and taught:
           pkd and reviewkd (maps of the pyramid), dkd and lshfm (logits and features of regions)
"""

from __future__ import annotations

from dataclasses import replace

from configs._multi_label import UNSCALED, term
from configs.digit_canvases import of_single_digits
from dataset.loader import DataConfig
from knowledge_distiller import Term
from models.detectors.settings import DetectorConfig
from models.zoo import NetworkConfig
from recipe import Recipe
from teachers import teacher_of
from training.optimizer import OptimConfig
from training.phases import Phase

TEACHER, STUDENT = "cifar_resnet20", "cifar_resnet8"
PRETRAINED_EPOCHS, TEACHER_EPOCHS, EPOCHS = 10, 7, 2
OPTIM = OptimConfig(
    optimizer="adam",
    init_lr=3e-3,
    weight_decay=1e-4,
    decay_norm_and_bias=False,
    schedule="onecycle",
    grad_clip=2.0,
)
DETECTOR = DetectorConfig(
    regions=32,
    positive_share=0.5,
    proposals_before_nms=(200, 100),
    proposals_after_nms=(50, 30),
    detections=30,
    anchor_size=8,
    channels=16,
    representation=64,
)
HARD = term("detection")
METHODS: dict[str, dict[str, Term]] = {  # what is learned from the teacher
    "alone": {},
    "pkd": term("pkd", 0.2),
    "reviewkd": term("reviewkd_levels", 0.003, channels=32),
    "dkd": term("dkd", 0.03, temperature=2.0),
    "lshfm": term("lshfm", 0.3),
}


def cfg(seeds: str = "0,1", work: str = "demo/work/detection") -> dict[str, Recipe]:
    """The students of all seeds, and before them the pretrained networks and the teacher, which they share."""
    single = of_single_digits(work, Phase(PRETRAINED_EPOCHS, {"cross_entropy": Term("cross_entropy")}, OPTIM))
    boxes = replace(
        single,
        task="detection",
        data=DataConfig(
            data_path=f"{work}/lmdb/boxes",
            batch_size=4,
            num_workers=0,
            type_of_data_aug="short_side",
            short_sides=(64,),
            val_crop="short_side",
            val_resize=64,
            val_batch_size=20,
            flip=False,
        ),
    )
    runs = {
        f"pretrained_{name}": replace(single, name=f"single_{name}", student=_network(name))
        for name in (TEACHER, STUDENT)
    }
    runs["teacher"] = replace(
        boxes,
        name="boxes_teacher",
        student=_detector(TEACHER),
        phases={"training": Phase(TEACHER_EPOCHS, HARD, OPTIM)},
    )
    taught = replace(teacher_of(runs["teacher"].student), weights="run:teacher")
    for name, terms in METHODS.items():
        for seed in seeds.split(","):
            runs[f"{name}_{seed}"] = replace(
                boxes,
                name=f"boxes_{name}_{seed}",
                student=_detector(STUDENT),
                teachers={"teacher": taught} if terms else {},
                phases={"training": Phase(EPOCHS, HARD | terms, OPTIM)},
                train_params=replace(boxes.train_params, seed=int(seed)),
            )
    return runs


def _detector(backbone: str) -> NetworkConfig:
    """Those for canvases start from weights for single digits, as others do from ImageNet's."""
    return replace(_network(f"fasterrcnn_{backbone}_fpn"), weights=f"run:pretrained_{backbone}", detector=DETECTOR)


def _network(name: str) -> NetworkConfig:
    return NetworkConfig(name, mean=UNSCALED["mean"], std=UNSCALED["std"])
