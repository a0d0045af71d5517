"""Detection on COCO 2017: a teacher, then a student, both detectors of torchvision.

Command    python train_with_distillation.py --cfg configs/coco_detection.py data.data_path=/data/coco17 \
               [student=resnet18 teacher=resnet101] [method=reviewdkd] [detector=fasterrcnn] [neck=fpn]
Data       dataset/coco2lmdb.py --year 2017 --boxes
Networks   student and teacher are backbones, or whole names, such as teacher=fcos_resnet101_fpn
Methods    dkd, kd: box heads over the student's regions; reviewkd, pkd, cwd, mgd, fgd: levels of the pyramid;
           reviewdkd: dkd and reviewkd; l2, lsh, lshl2: LSHFM; crosskd, crosskd_pkd: heads of RetinaNet and FCOS;
           pseudo_boxes: what any teacher finds, as if it were the truth; none
Solvers    of the method's paper: mdistiller, lshfm, mmdetection_1x, mmdetection_2x; solver=... chooses another
Teacher    trained first where it is not there yet; settings of its run: teacher.optim.init_lr=...
Rows       python train_with_distillation.py --cfg configs/coco_detection.py --methods
Published  the scores there; not yet repeated with this code. Those of MDistiller's pairs are in the papers of DKD and
           ReviewKD; none is published for kd, which has DKD's temperature, 1, nor for pseudo_boxes on labelled images
"""

from configs._detection import detection, row
from configs._multi_label import listed
from recipe import Recipe

_MDISTILLER = (("resnet18", "resnet101"), ("resnet50", "resnet101"), ("mobilenet_v2", "resnet50"))  # students, teachers
_TAUGHT = {"student": "resnet50", "teacher": "resnet101"}
_RETINANET, _FCOS = {"detector": "retinanet"}, {"detector": "fcos"}
_VGGS = {"student": "vgg11", "teacher": "vgg16"}
_X101, _CASCADE = "with a ResNeXt-101 (41.0) as teacher", "with a Cascade Mask R-CNN of ResNeXt-101 as teacher"
_INHERITED = "the student begins with the teacher's neck and heads"
ROWS = (
    *(row(student=student, method="none") for student, _ in _MDISTILLER),
    *(
        row(student=student, teacher=teacher, method=method)
        for method in ("dkd", "reviewkd", "reviewdkd", "kd")
        for student, teacher in _MDISTILLER
    ),
    *(row(**pair, method="lshl2") for pair in (_TAUGHT, _VGGS, _TAUGHT | _RETINANET, _VGGS | _RETINANET)),
    row(**_VGGS, neck="c4", method="lshl2"),
    row("39.8", student="resnet101", method="none", solver="mmdetection_2x"),
    row("38.4", student="resnet50", method="none", solver="mmdetection_2x"),
    row("40.3", **_TAUGHT, method="pkd"),
    row(f"42.0 {_CASCADE}", **_TAUGHT, method="fgd"),
    row(f"42.1 {_CASCADE}", **_TAUGHT, method="mgd"),
    row(**_TAUGHT, method="cwd"),
    row("38.9", student="resnet101", **_RETINANET, method="none"),
    row("37.4", student="resnet50", **_RETINANET, method="none"),
    row(f"40.8 {_X101}", **_TAUGHT, **_RETINANET, method="pkd"),
    row(
        f"40.7 {_X101}; {_INHERITED}",
        **_TAUGHT,
        **_RETINANET,
        method="fgd",
    ),
    row(
        f"41.0 with a ResNeXt-101, trained for 36 epochs, as teacher; {_INHERITED}",
        **_TAUGHT,
        **_RETINANET,
        method="mgd",
    ),
    row("39.7", **_TAUGHT, **_RETINANET, method="crosskd"),
    row("39.8", **_TAUGHT, **_RETINANET, method="crosskd_pkd"),
    row(**_TAUGHT, **_RETINANET, method="cwd"),
    row(
        "41.5 with a Mask R-CNN of Swin (48.2) as teacher",
        student="resnet50",
        teacher="fasterrcnn_resnet101_fpn",
        **_RETINANET,
        method="pkd",
    ),
    row(
        "40.3 with an FCOS of ResNeXt-101 (42.6) as teacher, alone 36.5",
        student="resnet50",
        teacher="fcos_resnet101_fpn",
        **_RETINANET,
        method="pkd",
        solver="mmdetection_1x",
    ),
    row("40.8", student="resnet101", **_FCOS, method="none"),
    row("38.5", student="resnet50", **_FCOS, method="none"),
    row(f"42.7; {_INHERITED}", **_TAUGHT, **_FCOS, method="fgd"),
    row("41.1", **_TAUGHT, **_FCOS, method="crosskd"),
    row("41.3", **_TAUGHT, **_FCOS, method="crosskd_pkd"),
    row(**_TAUGHT, **_FCOS, method="pkd"),
    row(**_TAUGHT, method="pseudo_boxes"),
    row(student="resnet50", teacher="fasterrcnn_resnet101_fpn", **_FCOS, method="pseudo_boxes"),
)


def cfg(
    student: str = "resnet18",
    teacher: str = "resnet101",
    method: str = "reviewdkd",
    detector: str = "fasterrcnn",
    neck: str = "fpn",
    solver: str = "",
    weights: str = "IMAGENET1K_V1",
) -> dict[str, Recipe]:
    """weights=none where ImageNet's cannot be fetched, or a file; neck=c4 is one map of stride 16."""
    return detection("coco", student, teacher, method, detector, neck, solver, weights)


def methods() -> str:
    """What --methods shows."""
    return listed("coco_detection", "AP of papers and READMEs", ROWS)
