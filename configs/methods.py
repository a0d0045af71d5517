"""The methods that were published, one entry each: terms and weights by data set, scores, papers.

    python train_with_distillation.py --methods [--cfg configs/imagenet.py]

Those that compare logits alone are in `_logit_methods.py`, all others in `_feature_methods.py`. No score here has been
repeated with this code yet.
"""

from __future__ import annotations

from configs._feature_methods import FEATURE_METHODS
from configs._logit_methods import LOGIT_METHODS
from configs._method import Setup, listed, method
from configs._pieces import REPDISTILLER, alone

METHODS = {
    "none": method(
        "A network alone: a student's baseline, or a teacher for the other methods.",
        imagenet=Setup(
            {},
            alone("Zhou et al., ICLR 2021", **{"resnet18": 69.75, "timm/mobilenetv1_100": 68.87}),
            "ResNet-18's score is torchvision's; the recipe is that of imagenet_train_cfg.py",
            teachers=(),
            optim={"nesterov": True},
            name="{student}_plain",
        ),
        cifar100=Setup(
            {},
            alone(
                REPDISTILLER,
                **{"resnet56": 72.34, "resnet110": 74.31, "resnet32x4": 79.42},
                **{"resnet50": 79.34, "wrn_40_2": 75.61, "vgg13": 74.64},
                **{"resnet20": 69.06, "resnet32": 71.14, "resnet8x4": 72.50, "wrn_16_2": 73.26, "wrn_40_1": 71.98},
                **{"vgg8": 70.36, "mobilenetv2": 64.60, "shufflenetv1": 70.50, "shufflenetv2": 71.82},
            ),
            teachers=(),
            name="{data}_{student}",
        ),
    ),
    **dict(sorted((LOGIT_METHODS | FEATURE_METHODS).items())),
}


def methods() -> str:
    """What --methods shows."""
    return listed(METHODS)
