"""A published method on CIFAR-100, with the recipe of RepDistiller and MDistiller.

Command    python train_with_distillation.py --cfg configs/cifar100.py method=dkd data.data_path=/data/cifar100 \
               [teacher=resnet32x4 student=resnet8x4]
Teacher    python train_with_distillation.py --cfg configs/cifar100.py method=none data.data_path=/data/cifar100 \
               student=resnet32x4
Methods    python train_with_distillation.py --cfg configs/cifar100.py --methods
Published  the scores in the table of methods; not yet repeated with this code
"""

from configs._method import Setup, listed, setups
from configs._pieces import LIGHT
from configs.methods import METHODS
from dataset.loader import DataConfig
from models.cifar import CIFAR
from models.zoo import NetworkConfig
from recipe import Recipe
from teachers import TeacherConfig, teacher_of
from training.optimizer import OptimConfig
from training.phases import Phase
from utils.config import entry

SETUPS = setups(METHODS, "cifar100")
NETWORKS = {name.removeprefix("cifar_"): name for name in CIFAR}


def cfg(method: str = "kd", teacher: str = "", student: str = "resnet8x4", second: str = "") -> Recipe:
    """When no teacher is given resnet32x4 teaches, and wrn_40_2 beside it where there is a second."""
    return recipe(method, entry(SETUPS, method, "method"), teacher, student, second)


def recipe(method: str, setup: Setup, teacher: str = "", student: str = "resnet8x4", second: str = "") -> Recipe:
    """240 epochs of batches of 64; the rate starts at 0.05, for light networks at 0.01, and falls after 150, 180, 210.

    A teacher is what `method=none student=<teacher>` trained; another file: teachers.teacher.weights=FILE.
    """
    optim = OptimConfig(
        init_lr=0.01 if student.startswith(LIGHT) else 0.05,
        milestones=(150, 180, 210),
        nesterov=False,
        weight_decay=5e-4,
    )
    plain = Recipe(
        name="cifar100",
        data=DataConfig(
            data_path="PATH/TO/cifar100",  # holds train/ and val/, written by dataset/cifar2lmdb.py
            batch_size=64,
            num_workers=1,
            input_size=32,
            type_of_data_aug="pad_crop",
            val_resize=32,
        ),
        student=_network(student, "student"),
        teachers={},
        phases={"training": Phase(240, {}, optim)},
    )
    usual = {"teacher": "resnet32x4", "second": "wrn_40_2"}
    return setup.recipe(plain, method, student, {"teacher": teacher, "second": second}, usual, _teacher)


def methods() -> str:
    """What --methods shows."""
    return listed(METHODS, "cifar100")


def _teacher(name: str) -> TeacherConfig:
    return teacher_of(_network(name, "teacher", f"runs/cifar100_{name}/student.safetensors"))


def _network(name: str, key: str, weights: str = "none") -> NetworkConfig:
    mean, std = (0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)
    return NetworkConfig(entry(NETWORKS, name, key), weights, mean=mean, std=std)
