"""Detection on VOC 2007 and 2012: a teacher, then a student, both detectors of torchvision.

Command    python train_with_distillation.py --cfg configs/voc_detection.py data.data_path=/data/voc0712 \
               [student=resnet50 teacher=resnet101] [method=lshl2] [detector=fasterrcnn] [neck=fpn]
Data       dataset/voc2lmdb.py --year 07+12 --boxes
Networks   student and teacher are backbones, or whole names, such as teacher=retinanet_resnet101_fpn; VGGs with neck=c4
           have one map of stride 16
Methods    l2, lsh, lshl2; the others of configs/coco_detection.py; or none
Teacher    trained first where it is not there yet; settings of its run: teacher.optim.init_lr=...
Rows       python train_with_distillation.py --cfg configs/voc_detection.py --methods
Published  the scores there; not yet repeated with this code. They are COCO's AP50 of objects that are not difficult;
           ours go by the area of VOC 2010, task_options.scores=coco shows COCO's
"""

from configs._detection import detection, row
from configs._multi_label import listed
from recipe import Recipe

_RESNETS = {"student": "resnet50", "teacher": "resnet101"}
_VGGS = {"student": "vgg11", "teacher": "vgg16"}
_METHODS = ("l2", "lsh", "lshl2")
_C4, _RETINANET = {"neck": "c4"}, {"detector": "retinanet"}
_TABLES: tuple[
    tuple[dict[str, str], dict[str, str], tuple[str, ...]], ...
] = (  # pair, the rest; teacher and student alone, L2, LSH, LSHL2
    (_RESNETS, {}, ("83.6", "82.0", "83.0", "82.6", "83.0")),
    (_VGGS, {}, ("79.0", "75.1", "76.8", "76.7", "77.2")),
    (_VGGS, _C4, ("78.4", "", "", "", "")),
    (_RESNETS, _RETINANET, ("83.0", "82.5", "82.6", "", "83.0")),
    (_VGGS, _RETINANET, ("76.6", "73.2", "74.8", "", "75.2")),
)
ROWS = tuple(
    one
    for pair, rest, (teacher, student, *scores) in _TABLES
    for one in (
        row(teacher, student=pair["teacher"], **rest, method="none"),
        row(student, student=pair["student"], **rest, method="none"),
        *(
            row(score, **pair, **rest, method=method)
            for method, score in zip(("l2", "lsh", "lshl2"), scores, strict=True)
        ),
    )
)


def cfg(
    student: str = "resnet50",
    teacher: str = "resnet101",
    method: str = "lshl2",
    detector: str = "fasterrcnn",
    neck: str = "fpn",
    solver: str = "",
    weights: str = "IMAGENET1K_V1",
) -> dict[str, Recipe]:
    """weights=none where ImageNet's cannot be fetched, or a file."""
    return detection("voc", student, teacher, method, detector, neck, solver, weights)


def methods() -> str:
    """What --methods shows."""
    return listed("voc_detection", "AP50 of the authors' README and file names", ROWS)
