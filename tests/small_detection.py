"""Coloured rectangles on noise, and a config of detectors that find them, small enough for a test."""

import io
from dataclasses import replace

import numpy as np
from PIL import Image
from splits import write_split

from dataset.loader import DataConfig
from dataset.store.record import Boxes, Record
from knowledge_distiller import Term
from models.detectors import DetectorConfig
from models.zoo import NetworkConfig
from recipe import Recipe
from teachers import teacher_of
from training.loop import TrainConfig
from training.optimizer import OptimConfig
from training.phases import Phase

CLASSES = ("red", "green", "blue")
SIDES = 56, 72  # of the images, pixels
DETECTOR = DetectorConfig(
    regions=16,
    proposals_before_nms=(60, 60),
    proposals_after_nms=(30, 30),
    anchor_size=8,
    channels=32,
    representation=32,
)


def images(count, seed, empty=()):
    """Records, those numbered in ``empty`` without an object."""
    random = np.random.default_rng(seed)
    for number in range(count):
        pixels = random.integers(0, 90, (*SIDES, 3), np.uint8)
        boxes, labels = [], []
        for _ in range(0 if number in empty else random.integers(1, 4)):
            label, (height, width) = int(random.integers(3)), random.integers(10, 28, 2)
            top, left = random.integers(0, SIDES[0] - height), random.integers(0, SIDES[1] - width)
            pixels[top : top + height, left : left + width, label] = 230
            boxes.append((float(left), float(top), float(left + width), float(top + height)))
            labels.append(label)
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "JPEG", quality=95)
        none = (False,) * len(boxes)
        yield Record(f"{seed}/{number}.jpg", file.getvalue(), Boxes(tuple(boxes), tuple(labels), none, none))


def write_data(folder):
    """lmdb/train of 16 images and lmdb/val of 7, one of each without an object."""
    for seed, (split, count) in enumerate((("train", 16), ("val", 7))):
        records = list(images(count, seed, empty=(3,)))
        write_split(folder / "lmdb" / split, records, target="detection", classes=CLASSES, size=SIDES)
    return folder


def network(name, **more):
    """A detector on a ResNet-8 for small images."""
    detector = replace(DETECTOR, anchor_size=None) if name == "fcos" else DETECTOR  # which has no anchors
    return NetworkConfig(f"{name}_cifar_resnet8_fpn", detector=detector, **more)


def recipe(folder, runs, student="fasterrcnn", teacher="fasterrcnn", terms=None, **more):
    """Two epochs of four steps."""
    terms = terms or {"kd": Term("kd", 0.5), "pkd": Term("pkd", 0.5)}
    optim = OptimConfig(init_lr=0.02, schedule="cosine", grad_clip=5.0)
    return Recipe(
        **{
            "name": "run",
            "task": "detection",
            "data": DataConfig(
                str(folder / "lmdb"),
                batch_size=4,
                num_workers=0,
                input_size=64,
                type_of_data_aug="short_side",
                short_sides=(56, 64),
                longest_side=96,
                val_crop="short_side",
                val_resize=56,
                val_batch_size=3,
            ),
            "student": network(student),
            "teachers": {"teacher": replace(teacher_of(network(teacher)), expect=0.0)} if teacher else {},
            "phases": {
                "distillation": Phase(2, {"detection": Term("detection"), **terms}, optim, freeze_norms="statistics")
            },
            "train_params": TrainConfig(output_path=str(runs), checkpoint_steps=2, print_freq=2),
            **more,
        }
    )
