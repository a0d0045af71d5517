"""What people call classes, and the superclasses that these belong to: of ImageNet and CIFAR-100.

ImageNet's class folders are WordNet ids, such as n01440764 for the tench. Data, stores and checkpoints know classes by
these; pictures and tables for people say `tench`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path

OTHER = "other"  # the superclass of what is in none of the others

_WORDNET_ID = re.compile(r"n\d{8}")
_IMAGENET = Path(__file__).with_name("imagenet_classes.txt")

# Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009, section 3.1; names as in its files.
_CIFAR100 = {
    "aquatic mammals": "beaver dolphin otter seal whale",
    "fish": "aquarium_fish flatfish ray shark trout",
    "flowers": "orchid poppy rose sunflower tulip",
    "food containers": "bottle bowl can cup plate",
    "fruit and vegetables": "apple mushroom orange pear sweet_pepper",
    "household electrical devices": "clock keyboard lamp telephone television",
    "household furniture": "bed chair couch table wardrobe",
    "insects": "bee beetle butterfly caterpillar cockroach",
    "large carnivores": "bear leopard lion tiger wolf",
    "large man-made outdoor things": "bridge castle house road skyscraper",
    "large natural outdoor scenes": "cloud forest mountain plain sea",
    "large omnivores and herbivores": "camel cattle chimpanzee elephant kangaroo",
    "medium-sized mammals": "fox porcupine possum raccoon skunk",
    "non-insect invertebrates": "crab lobster snail spider worm",
    "people": "baby boy girl man woman",
    "reptiles": "crocodile dinosaur lizard snake turtle",
    "small mammals": "hamster mouse rabbit shrew squirrel",
    "trees": "maple_tree oak_tree palm_tree pine_tree willow_tree",
    "vehicles 1": "bicycle bus motorcycle pickup_truck train",
    "vehicles 2": "lawn_mower rocket streetcar tank tractor",
}


def names_for_people(classes: Sequence[str]) -> list[str]:
    """What people call the ``classes``: `tench` for n01440764; any other name as it is.

    The ids of ImageNet's 1000 classes are known, and where timm is installed those of the whole of ImageNet. Where two
    of the classes are called the same, each has its id behind the name.
    """
    ids = {one for one in classes if _WORDNET_ID.fullmatch(one)}
    known = _imagenet_names() if ids else {}
    if ids - known.keys():
        known = {**_names_of_timm(), **known}
    names = [known.get(one, one) for one in classes]
    counts = Counter(names)
    return [name if counts[name] == 1 else f"{name} ({one})" for name, one in zip(names, classes)]


def imagenet_classes() -> tuple[str, ...]:
    """The ids of ImageNet's 1000 classes, in the order of the labels."""
    return tuple(_of_imagenet())


def superclasses(classes: Sequence[str]) -> list[str] | None:
    """The superclass of each of the ``classes``; None unless all are of CIFAR-100 or of ImageNet's 1000.

    CIFAR-100's 20 are its authors'. ImageNet's are 20 hypernyms of WordNet 3.0, and `OTHER`.
    """
    for known in (_of_cifar100(), _of_imagenet()):
        if all(one in known for one in classes):
            return [known[one] for one in classes]
    return None


def _of_cifar100() -> dict[str, str]:
    return {name: above for above, names in _CIFAR100.items() for name in names.split()}


@cache
def _of_imagenet() -> dict[str, str]:
    """Superclasses by id, in the order of the labels."""
    lines = [line for line in _IMAGENET.read_text("utf-8").splitlines() if not line.startswith("#")]
    return {name: above for name, _, above in (line.partition(" ") for line in lines)}


@cache
def _imagenet_names() -> dict[str, str]:
    """torchvision lists the names in the order of the labels, which is that of the sorted ids."""
    from torchvision.models import ResNet18_Weights  # torchvision takes seconds

    return dict(zip(_of_imagenet(), ResNet18_Weights.IMAGENET1K_V1.meta["categories"], strict=True))


@cache
def _names_of_timm() -> dict[str, str]:
    """The first name of each class of the whole ImageNet; none without timm."""
    try:
        from timm.data import ImageNetInfo
    except ImportError:
        return {}
    info = ImageNetInfo("imagenet-21k-goog")
    return {one: info.label_name_to_description(one).partition(",")[0] for one in info.label_names()}
