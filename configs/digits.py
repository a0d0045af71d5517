"""The handwritten digits of scikit-learn: the demo.

    method=teacher   a ResNet-20
    method=student   a ResNet-8 alone
    method=wsld      the ResNet-8 and weighted soft labels of the ResNet-20

Command    make demo
Hardware   2 CPU cores, under half a minute a run
"""

from dataset.loader import DataConfig
from knowledge_distiller import Term
from models.zoo import NetworkConfig
from recipe import Recipe
from teachers import TeacherConfig
from training.loop import TrainConfig
from training.optimizer import OptimConfig
from training.phases import Phase
from utils.config import entry

OPTIM = OptimConfig(init_lr=0.1, schedule="cosine", warmup_epochs=1, weight_decay=5e-4)
LABELS = {"cross_entropy": Term("cross_entropy")}
WSLD = {**LABELS, "wsld": Term("wsld", weight=2.5, options={"temperature": 2.0})}
TEACHERS = {"teacher": TeacherConfig("cifar_resnet20", weights="demo/work/runs/digits_teacher/student.safetensors")}
METHODS: dict[str, tuple[str, dict[str, TeacherConfig], dict[str, Phase]]] = {  # student, teachers, phases
    "teacher": ("cifar_resnet20", {}, {"training": Phase(15, LABELS, OPTIM)}),
    "student": ("cifar_resnet8", {}, {"training": Phase(5, LABELS, OPTIM)}),
    "wsld": ("cifar_resnet8", TEACHERS, {"distillation": Phase(5, WSLD, OPTIM)}),
}


def cfg(method: str = "student") -> Recipe:
    """One of the three runs."""
    student, teachers, phases = entry(METHODS, method, "method")
    return Recipe(
        name=f"digits_{method}",
        data=DataConfig(
            data_path="demo/work/lmdb",
            batch_size=50,
            num_workers=1,
            input_size=16,  # twice the 8 x 8 pixels of the digits
            scale=(0.6, 1.0),
            flip=False,  # a mirrored digit is another sign
            val_resize=16,
            decode="exact",  # of images this small nothing is saved
        ),
        student=NetworkConfig(student),
        teachers=teachers,
        phases=phases,
        train_params=TrainConfig(print_freq=10, output_path="demo/work/runs"),
    )


def methods() -> str:
    """What --methods shows."""
    return __doc__ or ""
