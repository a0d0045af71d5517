"""Canvases of several handwritten digits: two multi-label methods from end to end, in the demo's small way.

Command    python -m demo.multilabel
Hardware   2 CPU cores, four minutes
Runs       two ResNet-20, one a head, which teach all seeds; ResNet-8 with each head alone, and taught:
           mld, l2d (MLD and label embeddings), lshfm (an embedding is aligned, then all is trained)
"""

from __future__ import annotations

from dataclasses import replace

from configs._multi_label import UNSCALED, term
from dataset.loader import DataConfig
from knowledge_distiller import Term
from models.heads import HeadConfig
from models.zoo import NetworkConfig
from recipe import Recipe
from teachers import teacher_of
from training.loop import TrainConfig
from training.optimizer import OptimConfig
from training.phases import Phase

TEACHER, STUDENT = "cifar_resnet20", "cifar_resnet8"
TEACHER_EPOCHS, EPOCHS = 7, 4
OPTIM = OptimConfig(optimizer="adam", init_lr=5e-3, weight_decay=1e-4, decay_norm_and_bias=False, schedule="onecycle")
OWN = HeadConfig()
LABELS = HeadConfig("label_embeddings", {"dimensions": 64, "heads": 4, "width": 128})
POOLED = HeadConfig("pooling", {"kind": "max"})
EMBEDDED = HeadConfig("pooling", {"kind": "max", "dimensions": 64})  # as many as the teacher's pooled features have
HARD = term("bce")
MLD = term("mld", 0.5)
LED = term("label_embeddings", 0.0001)
LSHFM = term("lshfm", 0.15, bias="median")
PHASES: dict[str, tuple[HeadConfig, str, dict[str, Phase]]] = {  # of a student: its head, its teacher, phases
    "alone": (LABELS, "", {"training": Phase(EPOCHS, HARD, OPTIM)}),
    "mld": (LABELS, "teacher", {"distillation": Phase(EPOCHS, HARD | MLD, OPTIM)}),
    "l2d": (LABELS, "teacher", {"distillation": Phase(EPOCHS, HARD | MLD | LED, OPTIM)}),
    "pooled_alone": (EMBEDDED, "", {"training": Phase(1 + EPOCHS, HARD, OPTIM)}),  # as long as the next
    "lshfm": (
        EMBEDDED,
        "pooled_teacher",
        {
            "alignment": Phase(1, LSHFM, OPTIM, trainable=("student.pooled_classifier.embedding",)),
            "distillation": Phase(EPOCHS, HARD | LSHFM, OPTIM),
        },
    ),
}


def cfg(seed: str = "0", work: str = "demo/work/multilabel") -> dict[str, Recipe]:
    """The students of a seed, and before them the pretrained networks and the teachers, which all seeds share."""
    single = of_single_digits(work, Phase(3, {"cross_entropy": Term("cross_entropy")}, OPTIM))
    several = replace(
        single,
        task="multi_label",
        data=replace(single.data, data_path=f"{work}/lmdb/several", input_size=40),
        phases={"training": Phase(TEACHER_EPOCHS, HARD, OPTIM)},
    )
    runs = {
        f"pretrained_{name}": replace(single, name=f"canvases_pretrained_{name}", student=_network(name))
        for name in (TEACHER, STUDENT)
    }
    for name, head in (("teacher", LABELS), ("pooled_teacher", POOLED)):
        runs[name] = replace(
            several, name=f"canvases_{name}", student=_network(TEACHER, f"run:pretrained_{TEACHER}", head)
        )
    for name, (head, teacher, phases) in PHASES.items():
        taught = {"teacher": replace(teacher_of(runs[teacher].student), weights=f"run:{teacher}")} if teacher else {}
        runs[name] = replace(
            several,
            name=f"canvases_{name}_{seed}",
            student=_network(STUDENT, f"run:pretrained_{STUDENT}", head),
            teachers=taught,
            phases=phases,
            train_params=replace(several.train_params, seed=int(seed)),
        )
    return runs


def of_single_digits(work: str, phase: Phase) -> Recipe:
    """A classifier of single digits, whose weights networks for canvases start from."""
    return Recipe(
        name="single",
        data=DataConfig(
            data_path=f"{work}/lmdb/single",
            batch_size=25,
            num_workers=0,
            input_size=16,
            type_of_data_aug="squash",
            val_crop="squash",
            flip=False,  # a mirrored digit is another sign
        ),
        student=_network(TEACHER),
        teachers={},
        phases={"training": phase},
        train_params=TrainConfig(print_freq=10, output_path=f"{work}/runs"),
    )


def _network(name: str, weights: str = "none", head: HeadConfig = OWN) -> NetworkConfig:
    """Those for canvases start from weights for single digits, as others do from ImageNet's."""
    return NetworkConfig(name, weights, head=head, mean=UNSCALED["mean"], std=UNSCALED["std"])
