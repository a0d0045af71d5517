"""What the ImageNet pages share: the recipe of the CRD paper, which most tables of the literature follow."""

from dataclasses import replace

from imagenet_train_cfg import cfg as wsld
from knowledge_distiller import Term
from models.heads import HeadConfig
from models.zoo import NetworkConfig
from recipe import Recipe
from teachers import TeacherConfig
from utils.config import entry

PAIRS = (("resnet34", "resnet18"), ("resnet50", "timm/mobilenetv1_100"))  # teacher, student
DIMENSIONS = {"resnet34": 512, "resnet50": 2048}

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


def recipe(
    method: str, teacher: str, student: str, batch_size: int = 256, head: HeadConfig = OWN, **terms: Term
) -> Recipe:
    """100 epochs; the rate is 0.1 for 256 images a step and falls after 30, 60 and 90.

    Without cross-entropy among the ``terms`` it is added with weight 1.
    """
    return replace(
        wsld,
        name=f"imagenet_{student.removeprefix('timm/')}_{method}_{teacher}",
        data=replace(wsld.data, batch_size=batch_size),
        student=NetworkConfig(student, head=head),
        teachers={"teacher": TeacherConfig(teacher, weights="IMAGENET1K_V1")},
        terms={"cross_entropy": Term("cross_entropy"), **terms},
        optim=replace(wsld.optim, init_lr=0.1 * batch_size / 256, nesterov=False),
    )
