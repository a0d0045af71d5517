"""The ResNet-20 teaches the ResNet-8 on the handwritten digits with weighted soft labels.

Command    make demo
"""

from dataclasses import replace

from configs.digits_student import cfg as base
from knowledge_distiller import Term
from teachers import TeacherConfig

cfg = replace(
    base,
    name="digits_wsld",
    teachers={"teacher": TeacherConfig("cifar_resnet20", weights="demo/work/runs/digits_teacher/student.safetensors")},
    terms={
        "cross_entropy": Term("cross_entropy"),
        "wsld": Term("wsld", weight=2.5, options={"temperature": 2.0}),
    },
)
