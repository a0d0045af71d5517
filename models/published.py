"""Networks of torchvision and timm, with their published weights and what these need of their input.

K classes.
"""

from __future__ import annotations

import difflib
import urllib.error
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torchvision
from torch import Tensor, nn

from models.cifar import CIFAR
from models.fitting import check_classes, differ_in_classes
from models.outputs import Normalization
from models.trial import Origin
from models.weights import A_FILE, check_name, todays_names
from utils.distributed import print_on_first
from utils.errors import UsageError
from utils.files import sha256

_SCALED, _SCALES = ("googlenet", "inception_v3"), "transform_input"
_HELPERS = ("aux1", "aux2", "AuxLogits")  # classifiers of GoogLeNet and Inception that only help to train them


class Library(NamedTuple):
    """A network of a library.

    Attributes:
        network: images [B, 3, H, W] -> logits [B, K].
        normalization: of its published weights, where those are used.
        top1: their published accuracy on ImageNet-1K, percent, where it is known and all of them are used.
        loaded: whether the weights asked for are in it.
        origin: of one's own, where it is written.
    """

    network: nn.Module
    normalization: Normalization | None = None
    top1: float | None = None
    loaded: bool = False
    origin: Origin | None = None


class File(NamedTuple):
    """A file of weights, and the state dict in it."""

    path: Path
    state: Mapping[str, Tensor]


def torchvision_network(name: str, weights: str | File, num_classes: int, *, new_classifier: bool) -> Library:
    """A network of torchvision, made by its own builder, which knows what each of its published weights needs.

    A file that torchvision published is known by its checksum, and serves like its weights by name.

    Args:
        name: such as resnet34.
        weights: none, published ones by name, or a file.
        num_classes: K.
        new_classifier: whether published weights for another number of classes get a new classifier.

    Raises:
        UsageError: unknown name, or weights that cannot be had or do not fit.
        DataError: a file of weights is damaged.
    """
    names = torchvision.models.list_models(module=torchvision.models)
    if name not in names:
        raise UsageError(f"no network {name!r}{_near(name, [*names, *CIFAR])}; timm's begin with timm/")
    known = torchvision.models.get_model_weights(name)
    if isinstance(weights, File):
        asked = published_as(weights.path, known)
    elif weights == "none":
        asked = None
    elif weights == "default" or weights in known.__members__:
        asked = known["DEFAULT" if weights == "default" else weights]
    else:
        raise UsageError(
            f"{name} has no weights {weights}; torchvision has {', '.join(known.__members__)}; or give {A_FILE}"
        )
    if asked is None:
        return Library(_plain(name, num_classes, weights))
    if asked.meta["categories"] is None:
        raise UsageError(f"{name} {asked.name} are weights of its features alone, which cannot classify; choose others")
    outputs = len(asked.meta["categories"])
    if outputs != num_classes:
        check_classes(f"{name} {asked.name}", outputs, num_classes, new_classifier=new_classifier)
    network = _with_weights(name, asked, weights if isinstance(weights, File) else None)
    top1 = asked.meta.get("_metrics", {}).get("ImageNet-1K", {}).get("acc@1")
    if outputs != num_classes:
        _give_classifier(network, _plain(name, num_classes, "none"), num_classes)
        top1 = None
    transforms = asked.transforms()
    return Library(network, Normalization(tuple(transforms.mean), tuple(transforms.std)), top1, loaded=True)


def fetched(asked: Any) -> File:
    """Published weights of torchvision, and where they are kept.

    Raises:
        UsageError: they cannot be downloaded.
        DataError: the file is damaged.
    """
    target = Path(torch.hub.get_dir(), "checkpoints", asked.url.rpartition("/")[2])
    if target.exists():
        check_name(target)  # torch.hub compares new downloads alone
    try:
        return File(target, todays_names(asked.get_state_dict(progress=True, check_hash=True)))
    except (urllib.error.URLError, OSError, RuntimeError) as error:
        raise UsageError(f"cannot download {asked.url} ({error}): fetch it elsewhere and put it at {target}") from None


def _with_weights(name: str, asked: Any, file: File | None) -> nn.Module:
    """What torchvision's builder makes of published weights, or of those of a ``file`` in their place."""
    target, state = file or fetched(asked)
    asked.get_state_dict = lambda **_options: state
    try:
        return _without_helpers(torchvision.models.get_model(name, weights=asked))
    except RuntimeError as error:
        raise UsageError(f"{target} does not fit {name}: {' '.join(str(error).split())[:300]}") from None
    finally:
        del asked.get_state_dict


def published_as(path: Path, known: Any) -> Any:
    """Which of torchvision's published weights a file is, None when it is none of them."""
    if path.suffix == ".safetensors":
        return None
    digest = sha256(path)
    hashes = {one: one.url.rpartition("-")[2].partition(".")[0] for one in known}
    return next((one for one, beginning in hashes.items() if digest.startswith(beginning)), None)


def _plain(name: str, num_classes: int, weights: str | File) -> nn.Module:
    """A network with random weights, of the form that those in a file have."""
    state = weights.state if isinstance(weights, File) else {}
    options: dict[str, Any] = {}
    if name in _SCALED:
        versions = getattr(state, "_metadata", {}).get("", {})
        options = {"aux_logits": False, "init_weights": not state, "transform_input": versions.get(_SCALES, False)}
        if isinstance(weights, File) and _SCALES not in versions:
            print_on_first(
                f"{weights.path} does not say whether {name} scales its input itself ({_SCALES}, as with published "
                "weights), taken as no; if it does, set mean and std to 0.5,0.5,0.5"
            )
    ends = (".encoder.pos_embedding", ".conv_proj.weight")  # of a vision transformer, [1, 1 + N, D] and [D, 3, P, P]
    shapes = {end: one.shape for name, one in state.items() for end in ends if f".{name}".endswith(end)}
    if len(shapes) == len(ends):
        positions, patches = (shapes[end] for end in ends)
        options["image_size"] = round((positions[1] - 1) ** 0.5) * patches[-1]
    return _without_helpers(torchvision.models.get_model(name, weights=None, num_classes=num_classes, **options))


def _without_helpers(network: nn.Module) -> nn.Module:
    """GoogLeNet and Inception without the classifiers that only help to train them: they always give logits alone."""
    if hasattr(network, _SCALES):
        helpers = [name for name in _HELPERS if hasattr(network, name)]
        for name, value in {"aux_logits": False, **dict.fromkeys(helpers)}.items():
            setattr(network, name, value)
        network.register_state_dict_post_hook(_note_scaling)
    return network


def _note_scaling(network: Any, _state: object, _prefix: str, versions: dict[str, Any]) -> None:
    """Note in a state dict whether its network scales the input itself: nothing else in it shows it."""
    versions[_SCALES] = network.transform_input


def _give_classifier(network: nn.Module, other: nn.Module, num_classes: int) -> None:
    """Put the classifiers of ``other``, a twin for K classes, in the place of those of ``network``."""
    old, new = network.state_dict(), other.state_dict()
    for name in old.keys() & new.keys():
        if differ_in_classes(old[name], new[name], num_classes):
            module = name.rpartition(".")[0]
            network.set_submodule(module, other.get_submodule(module))


def timm_network(name: str, weights: str, num_classes: int, side: int, *, new_classifier: bool) -> Library:
    """A network of timm, made by its own builder; a transformer that can be made for another size of images is.

    Args:
        name: such as mobilenetv1_100, without `timm/`.
        weights: none or default.
        num_classes: K; 0 for a network without a classifier.
        side: of the images, pixels.
        new_classifier: whether published weights for another number of classes get a new classifier.

    Raises:
        UsageError: unknown name, or weights that cannot be had or do not fit.
    """
    try:
        import timm
    except ImportError:
        raise UsageError(f"timm/{name} needs timm: pip install timm") from None
    if weights not in ("none", "default"):
        raise UsageError(f"timm/{name} has no weights {weights}; give default, {A_FILE}, or none")
    try:
        source = timm.get_pretrained_cfg(name) if timm.is_model(name) else None
        if weights == "default" and source is not None:
            if not source.has_weights:
                raise UsageError(f"timm/{name} has no published weights; give {A_FILE}, or none")
            if num_classes and source.num_classes != num_classes:
                tagged = f"timm/{name} {source.tag}".rstrip()
                check_classes(tagged, source.num_classes, num_classes, new_classifier=new_classifier)
        made = partial(timm.create_model, name, pretrained=weights == "default", num_classes=num_classes)
        network: Any = made()
        outputs = network.pretrained_cfg["num_classes"]
        if weights == "default" and source is None and num_classes not in (0, outputs):  # of the hub
            check_classes(f"timm/{name}", outputs, num_classes, new_classifier=new_classifier)
        if hasattr(network, "set_input_size") and network.pretrained_cfg["input_size"][-1] != side:
            network = made(img_size=side)  # keeps windows, and resamples positions
    except UsageError:
        raise
    except (RuntimeError, OSError, ValueError) as error:
        first = " ".join(str(error).split())[:300]
        if weights == "default" and source is not None:
            raise UsageError(
                f"cannot get timm's weights of {name} ({first}): fetch {source.hf_hub_id or source.url} elsewhere "
                "and set weights to the file's path"
            ) from None
        if ":" in name:
            raise UsageError(
                f"cannot get timm/{name} ({first}): without a network it must be in the hub's cache (HF_HOME)"
            ) from None
        raise UsageError(f"no network 'timm/{name}': {first}{_near(name, timm.list_models())}") from None
    pretrained = network.pretrained_cfg
    return Library(network, Normalization(tuple(pretrained["mean"]), tuple(pretrained["std"])), None, weights != "none")


def sizes_of(name: str, network: nn.Module) -> str:
    """What a network's library states of the images that it takes; empty where it states nothing."""
    if (side := getattr(network, "image_size", None)) is not None:
        return f"it takes {side}"
    if (source := getattr(network, "pretrained_cfg", None)) is not None:
        return f"it is made for {source['input_size'][-1]}"
    if name in torchvision.models.list_models(module=torchvision.models):
        least = {one.meta["min_size"][0] for one in torchvision.models.get_model_weights(name)}
        return f"it takes {max(least)} and more" if least else ""
    return ""


def _near(name: str, names: list[str]) -> str:
    near = difflib.get_close_matches(name, names, n=3)
    return f"; near: {', '.join(near)}" if near else ""
