"""What the CIFAR-100 pages share: the recipe of RepDistiller and MDistiller, and the pairs of their tables."""

from dataclasses import replace

from dataset.loader import DataConfig
from knowledge_distiller import Term
from models.heads import HeadConfig
from models.zoo import NetworkConfig
from recipe import Recipe
from teachers import teacher_of
from training.loop import TrainConfig
from training.optimizer import OptimConfig
from utils.config import entry

PAIRS = (  # teacher, student
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
)
DIMENSIONS = {  # of the features before each teacher's classifier
    **dict.fromkeys(("resnet8", "resnet14", "resnet20", "resnet32", "resnet44", "resnet56", "resnet110"), 64),
    **{"resnet8x4": 256, "resnet32x4": 256, "wrn_16_1": 64, "wrn_40_1": 64, "wrn_16_2": 128, "wrn_40_2": 128},
    **dict.fromkeys(("vgg8", "vgg11", "vgg13", "vgg16", "vgg19", "resnet18", "resnet34"), 512),
    **{"resnet50": 2048, "resnet101": 2048, "resnet152": 2048},
    **{"mobilenetv2": 1280, "shufflenetv1": 960, "shufflenetv2": 1024},
}
WARMUP = ((1, 1 / 20), (20, 1.0))  # a weight that grows over the first 20 epochs

OWN = HeadConfig()
Scores = dict[tuple[str, str], float]  # of pairs: top-1, per cent


def by_pair(*scores: float) -> Scores:
    """Scores in the order of the pairs."""
    return dict(zip(PAIRS, scores))


def dimensions(teacher: str) -> int:
    """Of the features before a teacher's classifier.

    Raises:
        UsageError: it is not in the table.
    """
    return entry(DIMENSIONS, teacher, "teacher")


def recipe(method: str, teacher: str | None, student: str, head: HeadConfig = OWN, **terms: Term) -> Recipe:
    """240 epochs of batches of 64; the rate starts at 0.05, for light networks at 0.01, and falls after 150, 180, 210.

    The teacher is what `teacher.py` trained; another file: teachers.teacher.weights=FILE. Without cross-entropy among
    the ``terms`` it is added with weight 1.
    """
    weights = f"runs/cifar100_{teacher}/student.safetensors"
    return Recipe(
        name=f"cifar100_{student}_{method}_{teacher}" if teacher else f"cifar100_{student}",
        data=DataConfig(
            data_path="PATH/TO/cifar100",  # holds train/ and val/, written by dataset/cifar2lmdb.py
            batch_size=64,
            num_workers=1,
            input_size=32,
            type_of_data_aug="pad_crop",
            val_resize=32,
        ),
        student=replace(_network(student), head=head),
        teachers={"teacher": teacher_of(_network(teacher, weights))} if teacher else {},
        terms={"cross_entropy": Term("cross_entropy"), **terms},
        optim=OptimConfig(
            init_lr=0.01 if student.startswith(("mobilenet", "shufflenet")) else 0.05,
            milestones=(150, 180, 210),
            nesterov=False,
            weight_decay=5e-4,
        ),
        train_params=TrainConfig(epochs=240),
    )


def _network(name: str, weights: str = "none") -> NetworkConfig:
    mean, std = (0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)
    return NetworkConfig(f"cifar_{name}", weights, mean=mean, std=std)
