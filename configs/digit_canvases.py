"""Canvases of several handwritten digits: two multi-label methods from end to end, in the demo's small way.

Command    python -m demo.multilabel
Hardware   2 CPU cores, about three minutes with three seeds
Runs       two ResNet-20, one a head, which teach all seeds; ResNet-8 with each head alone, and taught:
           mld, l2d (MLD and label embeddings), lshfm (an embedding is aligned, then all is trained)
"""

from __future__ import annotations

from dataclasses import replace

from configs._multi_label import UNSCALED, term
from dataset.loader import DataConfig
from models.heads import HeadConfig
from models.zoo import NetworkConfig
from recipe import Recipe
from teachers import teacher_of
from training.loop import TrainConfig
from training.optimizer import OptimConfig
from training.phases import Phase

WORK = "demo/work/multilabel"
TEACHER, STUDENT = "cifar_resnet20", "cifar_resnet8"
TEACHER_EPOCHS, EPOCHS = 12, 4
OPTIM = OptimConfig(optimizer="adam", init_lr=5e-3, weight_decay=1e-4, decay_norm_and_bias=False, schedule="onecycle")
LABELS = HeadConfig("label_embeddings", {"dimensions": 32, "heads": 4, "width": 64})
POOLED = HeadConfig("pooling")
EMBEDDED = HeadConfig("pooling", {"dimensions": 64})  # of the teacher's pooled features, and of the student's
HARD = term("bce")
MLD = term("mld", 0.1)
LED = term("label_embeddings", 0.001)
LSHFM = term("lshfm", 3.0, bias="median", hashes=512)
PHASES: dict[str, tuple[HeadConfig, str, dict[str, Phase]]] = {  # of a student: its head, its teacher, phases
    "alone": (LABELS, "", {"training": Phase(EPOCHS, HARD, OPTIM)}),
    "mld": (LABELS, "teacher", {"distillation": Phase(EPOCHS, HARD | MLD, OPTIM)}),
    "l2d": (LABELS, "teacher", {"distillation": Phase(EPOCHS, HARD | MLD | LED, OPTIM)}),
    "pooled_alone": (POOLED, "", {"training": Phase(EPOCHS, HARD, OPTIM)}),
    "lshfm": (
        EMBEDDED,
        "pooled_teacher",
        {
            "alignment": Phase(1, LSHFM, OPTIM, trainable=("student.pooled_classifier.embedding",)),
            "distillation": Phase(EPOCHS, HARD | LSHFM, OPTIM),
        },
    ),
}


def cfg(seed: str = "0") -> dict[str, Recipe]:
    """The students of a seed; the teachers before them, unless another seed has trained them."""
    alone = Recipe(
        name="canvases",
        task="multi_label",
        data=DataConfig(
            data_path=f"{WORK}/lmdb",
            batch_size=50,
            num_workers=0,
            input_size=40,
            type_of_data_aug="squash",
            val_crop="squash",
            flip=False,
        ),
        student=NetworkConfig(TEACHER, **UNSCALED),
        teachers={},
        phases={"training": Phase(TEACHER_EPOCHS, HARD, OPTIM)},
        train_params=TrainConfig(print_freq=10, output_path=f"{WORK}/runs"),
    )
    runs = {
        name: replace(alone, name=f"canvases_{name}", student=replace(alone.student, head=head))
        for name, head in (("teacher", LABELS), ("pooled_teacher", POOLED))
    }
    params = replace(alone.train_params, seed=int(seed))
    for name, (head, teacher, phases) in PHASES.items():
        runs[name] = replace(
            alone,
            name=f"canvases_{name}_{seed}",
            student=NetworkConfig(STUDENT, head=head, **UNSCALED),
            teachers={"teacher": replace(teacher_of(runs[teacher].student), weights=f"run:{teacher}")}
            if teacher
            else {},
            phases=phases,
            train_params=params,
        )
    return runs
