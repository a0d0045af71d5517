"""Multi-label knowledge distillation (Yang et al., ICCV 2023, arXiv 2308.06453), in the authors' recipe."""

from __future__ import annotations

from dataclasses import replace

from configs._multi_label import PLACES, Row, network, term
from dataset.loader import DataConfig
from knowledge_distiller import Term
from models.heads import HeadConfig
from recipe import Recipe
from teachers import teacher_of
from training.loop import TrainConfig
from training.optimizer import OptimConfig
from training.phases import Phase
from utils.config import entry

Terms = dict[str, Term]

FEATURES: dict[str, Terms] = {
    "none": {},
    "pkt": term("pkt"),
    "rkd": term("rkd_distance", 10.0, reduction="batchmean") | term("rkd_angle", 10.0),
    "reviewkd": term("reviewkd_pre", name="reviewkd"),
}
EMBEDDINGS: dict[str, Terms] = {
    "none": {},
    "cd": term("label_embeddings", class_aware=100.0, instance_aware=0.0),
    "id": term("label_embeddings", class_aware=0.0, instance_aware=1000.0),
    "led": term("label_embeddings", class_aware=100.0, instance_aware=1000.0),
}
LOGITS: dict[str, Terms] = {
    "none": {},
    "mld": term("mld", 10.0),
    "partial_softmax": term("partial_softmax", 10.0),
    "mse": term("squared_error", 10.0),
}
HARD = term("bce", epsilon=1e-8, reduction="sum")
PAIRS = (  # teacher, student: of the networks of the authors' code; their scores were not at hand
    ("resnet101", "resnet34"),
    ("wrn101", "wrn50"),
    ("repvgg_a2", "repvgg_a0"),
    ("swin_s", "swin_t"),
    ("resnet101", "repvgg_a0"),
    ("resnet101", "mobilenet_v2"),
    ("swin_s", "mobilenet_v2"),
    ("swin_s", "resnet34"),
)
ROWS = tuple(Row({"teacher": teacher, "student": student}) for teacher, student in PAIRS)


def l2d(
    data: str, teacher: str, student: str, feature: str, embeddings: str, logits: str, weights: str
) -> dict[str, Recipe]:
    """A teacher, which a run of the same name trains once for all students, and the student.

    Adam with weight decay in the gradient, but on biases and norms; one cycle of 80 epochs, which the teacher ends
    after 30.
    """
    optim = OptimConfig(
        optimizer="adam",
        init_lr=1e-4,
        weight_decay=1e-4,
        decay_norm_and_bias=False,
        schedule="onecycle",
        pct_start=0.2,
        cycle_epochs=80,
    )
    first = Recipe(
        name=f"{data}_{teacher}_l2d_teacher",
        task="multi_label",
        data=DataConfig(
            data_path=PLACES[data],
            batch_size=64,
            input_size=224,
            type_of_data_aug="squash",
            val_crop="squash",
            flip=False,
            cutout=0.5,
            randaugment=True,
            val_batch_size=64,
        ),
        student=network(teacher, "teacher", weights, HeadConfig("label_embeddings")),
        teachers={},
        phases={"training": Phase(30, HARD, optim)},
        train_params=TrainConfig(amp="bf16"),
    )
    parts = entry(FEATURES, feature, "feature") | entry(EMBEDDINGS, embeddings, "embeddings")
    terms = {**HARD, **parts, **entry(LOGITS, logits, "logits")}
    second = replace(
        first,
        name=f"{data}_{student}_l2d_{teacher}",
        student=network(student, "student", weights, HeadConfig("label_embeddings")),
        teachers={"teacher": replace(teacher_of(first.student), weights="run:teacher")},
        phases={"distillation": Phase(80, terms, optim)},
    )
    return {"teacher": first, "distillation": second}
