"""A published method on ImageNet, with the recipe of the CRD paper, which most tables of the literature follow.

Command    python train_with_distillation.py --cfg configs/imagenet.py method=dkd data.data_path=/data/lmdb \
               [teacher=resnet50 student=timm/mobilenetv1_100]
Methods    python train_with_distillation.py --cfg configs/imagenet.py --methods
Hardware   any; the global batch of 256, with some methods 512 or 128, is shared by the visible GPUs
Published  the scores in the table of methods; not yet repeated with this code
"""

from dataclasses import replace

import torchvision

from configs._method import Setup, listed, setups
from configs.methods import METHODS
from imagenet_train_cfg import cfg as wsld
from models.zoo import NetworkConfig
from recipe import Recipe
from teachers import TeacherConfig
from training.phases import Phase
from utils.config import entry

SETUPS = setups(METHODS, "imagenet")
NETWORKS = {name: name for name in torchvision.models.list_models(module=torchvision.models)}


def cfg(method: str = "kd", teacher: str = "", student: str = "resnet18") -> Recipe:
    """Networks are torchvision's, or timm/... ; resnet34 teaches when no teacher is given."""
    return recipe(method, entry(SETUPS, method, "method"), teacher, student)


def recipe(method: str, setup: Setup, teacher: str = "", student: str = "resnet18") -> Recipe:
    """100 epochs; the rate is 0.1 for 256 images a step and falls after 30, 60 and 90."""
    plain = replace(
        wsld,
        name="imagenet",
        student=NetworkConfig(_known(student, "student")),
        teachers={},
        phases={"training": Phase(100, {}, replace(wsld.last.optim, nesterov=False))},
    )
    return setup.recipe(plain, method, student, {"teacher": teacher}, {"teacher": "resnet34"}, _teacher)


def methods() -> str:
    """What --methods shows."""
    return listed(METHODS, "imagenet")


def _teacher(name: str) -> TeacherConfig:
    return TeacherConfig(_known(name, "teacher"), weights="IMAGENET1K_V1")


def _known(name: str, key: str) -> str:
    return name if name.startswith("timm/") else entry(NETWORKS, name, key)
