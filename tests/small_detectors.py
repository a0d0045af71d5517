"""Small detectors, two images with objects for them, and what is known of these."""

from dataclasses import replace

import torch

from models.detectors import DetectorConfig
from models.outputs import Scene
from models.zoo import NetworkConfig, build_network

SIDE, K = 64, 3
NAMES = ("ant", "bee", "cat")
SMALL = DetectorConfig(channels=32, representation=32, regions=64, proposals_after_nms=(100, 50), detections=20)
TWO, RETINA, POINTS = (f"{name}_cifar_resnet8_fpn" for name in ("fasterrcnn", "retinanet", "fcos"))
ALL = (TWO, RETINA, POINTS)


def network_of(name, reads=(), config=SMALL, classes=NAMES, seed=0, **options):
    torch.manual_seed(seed)
    weights = options.pop("weights", "none")
    return build_network(NetworkConfig(name, weights, detector=config), len(classes), reads, classes=classes, **options)


def pixels(count=2, seed=1):
    return torch.randint(0, 256, (count, 3, SIDE, SIDE), generator=torch.Generator().manual_seed(seed)).byte()


BOXES = torch.tensor(
    [[[4.0, 6, 30, 40], [20, 20, 50, 44], [40, 2, 60, 22]], [[8, 8, 24, 30], [30, 30, 62, 60], [0, 0, 0, 0]]]
)
CLASSES = torch.tensor([[0, 2, 1], [1, 1, -1]])


def scene_of(images, learned=((1, 1, 1), (1, 1, 0)), sizes=None, index=(7, 11), epoch=2, first=0):
    count = len(images)
    rows = slice(first, first + count)
    targets = {
        "boxes": BOXES[rows],
        "classes": CLASSES[rows],
        "learned": torch.tensor(learned, dtype=torch.int8)[rows],
    }
    sizes = torch.tensor([[SIDE, SIDE]] * count) if sizes is None else sizes
    return Scene(sizes, targets, torch.tensor(index)[rows], epoch)


def untrained(scene, student=None):
    return replace(scene, targets={}, student=student)


def looks(network, images, scene):
    return network(network.normalize(images, scene), scene)


def sharp(network):
    """``network`` with heads of larger weights, so that scores differ."""
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if any(part in name for part in ("cls_logits", "cls_score", "bbox_pred", "bbox_reg", "bbox_ctrness")):
                parameter.normal_(0, 0.3)
                if parameter.ndim == 4 and "rpn" not in name:
                    parameter.mul_(0.3)
                if name.endswith("cls_logits.bias") and "rpn" not in name:
                    parameter.unflatten(0, (-1, network.num_classes + 1))[
                        :, 0
                    ] = -100  # never a class, as training makes it
    return network
