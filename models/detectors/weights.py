"""Weights of a detector: all of them, or its backbone's alone; and rows of its heads by names of classes.

K classes of the data, without background; A anchors a location.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torchvision
from torch import Tensor, nn

from models.detectors.backbones import Backbone
from models.detectors.detector import NORM_EPSILON
from models.detectors.making import Layer4
from models.detectors.names import Named
from models.fitting import load_state
from models.outputs import Normalization
from models.published import File, fetched, published_as
from models.weights import A_FILE, file_of, read_weights
from models.zoo import noted_classes, noted_normalization
from utils.distributed import print_on_first
from utils.errors import UsageError
from utils.text import first_few, in_utf8, spelled

_BACKGROUND = "__background__"  # what torchvision calls the first output
_MASKS = ("roi_heads.mask_", "roi_heads.keypoint_")  # parts that only give masks or points
_WITHOUT_EPSILON = ("fasterrcnn_resnet50_fpn", "maskrcnn_resnet50_fpn", "retinanet_resnet50_fpn")  # in their COCO_V1


class Weights(NamedTuple):
    """Weights, and what is known of them.

    Attributes:
        file: where they are, and the state dict.
        whole: whether they are of a detector, and not of a classifier.
        classes: names of the detector's classes, in order, without background; empty where they are not known.
        normalization: of the input; None where it is not known.
        epsilon: of the batch norms; None for PyTorch's.
    """

    file: File
    whole: bool
    classes: tuple[str, ...] = ()
    normalization: Normalization | None = None
    epsilon: float | None = None


def find(weights: str, named: Named) -> Weights | None:
    """The weights that a setting names; None for none.

    Raises:
        UsageError: there are none of this name, or they cannot be had.
        DataError: a file is damaged.
    """
    if weights == "none":
        return None
    if (place := file_of(weights)) is not None:
        return _in_file(File(place[0], read_weights(*place)), named)
    own = _of_detector(named)
    of_backbone = _of_backbone(named)
    if weights == "default":
        if not own and not of_backbone:
            raise UsageError(f"{named.name} has no published weights; give {A_FILE}, or none")
        chosen = (own or of_backbone)["DEFAULT"]
    elif weights in own:
        chosen = own[weights]
    elif weights in of_backbone:
        chosen = of_backbone[weights]
    else:
        raise UsageError(
            f"{named.name} has no weights {weights}; torchvision has {', '.join(own) or 'none of it'}, and of "
            f"{named.backbone} alone {', '.join(of_backbone) or 'none'}; or give {A_FILE}"
        )
    if chosen in own.values():
        return _published(fetched(chosen), chosen, named)
    transforms = chosen.transforms()
    return Weights(fetched(chosen), False, (), Normalization(tuple(transforms.mean), tuple(transforms.std)))


def load(
    network: Any, weights: Weights, named: Named, num_classes: int, classes: Sequence[str], *, new_classifier: bool
) -> None:
    """Load ``weights`` into ``network``, as `making.made` makes it.

    Args:
        network: torchvision's, with K + 1 outputs.
        weights: of a detector, or a classifier for the backbone.
        named: what network it is.
        num_classes: K.
        classes: names of the classes; empty where they are not known.
        new_classifier: whether a detector of other classes gets a new classifier, which is printed.

    Raises:
        UsageError: they do not fit, or, without ``new_classifier``, are of a detector that does not know the classes.
    """
    path = weights.file.path
    if weights.whole:
        state = _like(weights.file.state, {})
        state.update(
            (name, one) for name, one in weights.file.state.items() if not any(part in name for part in _MASKS)
        )
        _choose_rows(state, network, weights, num_classes, classes, new_classifier=new_classifier)
        load_state(network, state, path)
        for norm in network.modules():
            if isinstance(norm, nn.BatchNorm2d) and weights.epsilon is not None:
                norm.eps = weights.epsilon
        return
    backbone: Backbone = network.backbone
    parts = [backbone.body]
    if named.two_stage and isinstance(network.roi_heads.box_head, Layer4):
        parts.append(network.roi_heads.box_head)
    for part in parts:
        load_state(part, _of_part(weights.file.state, part), path)


def _of_detector(named: Named) -> dict[str, Any]:
    """What torchvision publishes of the detector, by name."""
    if not named.is_published:
        return {}
    return dict(torchvision.models.get_model_weights(named.name).__members__)


def _of_backbone(named: Named) -> dict[str, Any]:
    """What it publishes of the backbone, by name."""
    if named.backbone not in torchvision.models.list_models(module=torchvision.models):
        return {}
    return dict(torchvision.models.get_model_weights(named.backbone).__members__)


def _in_file(file: File, named: Named) -> Weights:
    """Weights of a file: those of torchvision are known by their checksum, ours by what is noted in them."""
    if named.is_published:
        published = published_as(file.path, torchvision.models.get_model_weights(named.name))
        if published is not None:
            return _published(file, published, named)
    noted = getattr(file.state, "_metadata", {}).get("", {})
    whole = any(".backbone.body." in f".{name}" for name in file.state)
    epsilon = noted.get(NORM_EPSILON)
    return Weights(
        file,
        whole,
        noted_classes(noted) if whole else (),
        noted_normalization(noted),
        epsilon if isinstance(epsilon, float) else None,
    )


def _published(file: File, chosen: Any, named: Named) -> Weights:
    """Weights of a detector that torchvision published.

    The first ones of three detectors were trained by a batch norm without epsilon. PyTorch's wants one above 0 in
    training; the smallest there is leaves every variance of theirs as it is.
    """
    legacy = named.name in _WITHOUT_EPSILON and chosen.name == "COCO_V1"
    epsilon = torch.finfo(torch.float32).tiny if legacy else None
    return Weights(file, True, tuple(chosen.meta["categories"][1:]), None, epsilon)


def _choose_rows(
    state: OrderedDict[str, Tensor],
    network: Any,
    weights: Weights,
    num_classes: int,
    classes: Sequence[str],
    *,
    new_classifier: bool,
) -> None:
    """Put into ``state`` the outputs of the classes, in their order, in place of those of the detector it is of."""
    layers = _by_class(network, num_classes)
    names = {name: layer for layer in layers for name in state if f".{name}".rpartition(".")[0].endswith(f".{layer}")}
    if not names:
        return  # missing: the loader names them
    name, layer = next(iter(names.items()))
    outer, inner = layers[layer]
    outputs = state[name].shape[0] // (outer * inner)
    known = [in_utf8(one) for one in weights.classes]
    asked = [in_utf8(one) for one in classes]
    if len(known) != outputs - 1:
        known = []
    if known and asked:
        lacking = [one for one in asked if one not in known]
        if not lacking:
            columns = torch.tensor([0, *(1 + known.index(one) for one in asked)])
            for name, layer in names.items():
                outer, inner = layers[layer]
                rows = state[name].unflatten(0, (outer, outputs, inner))
                state[name] = rows.index_select(1, columns).flatten(0, 2)
            return
        reason = f"does not know {first_few([*map(spelled, lacking)])}"
    elif outputs - 1 == num_classes:
        return
    else:
        reason = f"has {outputs - 1} classes, whose names it does not note; the data has {num_classes}"
    if not new_classifier:
        raise UsageError(f"{weights.file.path} {reason}: a teacher must know every class of the data; train it on them")
    print_on_first(f"{weights.file.path} {reason}: its classifier is new, all else is as in the weights")
    own = network.state_dict()
    state.update((name, own[f"{layer}.{name.rpartition('.')[2]}"]) for name, layer in names.items())


def _by_class(network: Any, num_classes: int) -> dict[str, tuple[int, int]]:
    """Layers with outputs by class: how often all classes come one behind the other, and the numbers of each."""
    if hasattr(network, "roi_heads"):
        return {"roi_heads.box_predictor.cls_score": (1, 1), "roi_heads.box_predictor.bbox_pred": (1, 4)}
    last = network.head.classification_head.cls_logits
    return {"head.classification_head.cls_logits": (last.out_channels // (num_classes + 1), 1)}


def _of_part(state: Mapping[str, Tensor], part: nn.Module) -> OrderedDict[str, Tensor]:
    """Those weights of a classifier that ``part`` has too, whatever stands before their names."""
    wanted = part.state_dict()
    counts = Counter(name.removesuffix(end) for name in state for end in _ends(name) if end in wanted)
    most = [prefix for prefix, count in counts.items() if count == max(counts.values())]
    kept = {
        name: one
        for name, one in state.items()
        if any(name.startswith(prefix) and name.removeprefix(prefix) in wanted for prefix in most)
    }
    return _like(state, kept)


def _ends(name: str) -> list[str]:
    """The name, and what is left of it without its first parts."""
    parts = name.split(".")
    return [".".join(parts[start:]) for start in range(len(parts))]


def _like(state: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> OrderedDict[str, Tensor]:
    """``values`` with the versions that stand beside ``state``."""
    result = OrderedDict(values)
    result._metadata = getattr(state, "_metadata", {})  # type: ignore[attr-defined]
    return result
