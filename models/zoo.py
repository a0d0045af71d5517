"""Networks by name: a backbone, what stands behind it (the head), weights, input normalisation.

Names: `resnet34` and every other torchvision classifier; `timm/mobilenetv1_100` and every other timm classifier;
`cifar_resnet20`, `cifar_resnet8x4`, ... of `models/cifar`; `fasterrcnn_resnet50_fpn` and every other detector of
`models/detectors`; `my_models:MyNet`, one's own by import path (`models/own.py`).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from models.cifar import CIFAR
from models.deploy import deploy, deployed, has_branches, is_deployed
from models.detectors import DetectorConfig, is_detector
from models.fitting import load_state
from models.heads import Backbone, Head, HeadConfig
from models.heads.contract import Own
from models.outputs import IMAGENET, Behind, Body, Normalization, Outputs, Scene, Tap, Tapped
from models.own import folder_of, import_path, is_own, own_network, remark_changes
from models.published import File, Library, sizes_of, timm_network, torchvision_network
from models.rest import rest_of
from models.taps import classifier_of, expanded, find_taps, run_once
from models.trial import Origin, try_out
from models.weights import A_FILE, file_of, read_weights
from utils.errors import UsageError
from utils.settings import about, setting

Option = int | float | bool | str | tuple[int, ...] | tuple[float, ...] | None
_NORMALIZATION, _CLASSES = "normalization", "classes"  # notes beside the version of the network in a state dict


@dataclass(frozen=True)
class NetworkConfig:
    """A network by name."""

    name: str = field(metadata=about(also=("model", "arch")))
    """resnet34, fasterrcnn_resnet50_fpn (torchvision), timm/mobilenetv1_100 (timm), cifar_resnet20 (Limbeck's own),
    my_models:MyNet (a class or function of yours: module beside the config, or installed, and its name there)"""
    weights: str = setting("none", also=("pretrained", "checkpoint"))
    """none, a .pth or .safetensors file, or published weights: default, torchvision's name such as IMAGENET1K_V1, or
    hf://user/repo[/file][@revision]; FILE#KEY chooses among several in a file"""
    num_classes: int | None = setting(None, least=1, most=10**6)
    """outputs; the number of classes in the data when not given"""
    mean: tuple[float, float, float] | None = setting(None, least=0, most=1)
    """input mean for pixels in [0, 1]; that of the weights where it is known (published ones, those of a run), else
    ImageNet's, when not given"""
    std: tuple[float, float, float] | None = setting(None, above=0, most=1)
    """input standard deviation, likewise"""
    head: HeadConfig = HeadConfig()
    """what stands behind the backbone"""
    taps: dict[str, str] = field(default_factory=dict)
    """features that are not found by themselves: name (stage1, last, ...) and path of the module that gives it"""
    detector: DetectorConfig = DetectorConfig()
    """of a detector, what it samples, proposes and keeps"""
    options: dict[str, Option] = field(default_factory=dict)
    """what a network of yours is made with, beside num_classes, such as width"""
    folder: str = setting("", affects_result=False)
    """where the module of a network of yours lies; found beside the config or on Python's path, and kept by the run"""

    def __post_init__(self) -> None:
        if callable(self.name):
            object.__setattr__(self, "name", import_path(self.name))
        if isinstance(self.name, str) and is_own(self.name):
            object.__setattr__(self, "folder", folder_of(self.name, self.folder))


class Network(nn.Module):
    """A classifier that normalises for itself; detectors derive from it.

    Args:
        body: images [B, 3, H, W] -> `Outputs`.
        normalization: of its input.
        num_classes: K.
        reads: features of the body that its outputs keep; with `rest` also what it makes of other maps.
        head: what stands behind the backbone.

    Attributes:
        normalization: networks that share one can share the normalised images.
        num_classes: K; 0 for one that gives features alone.
        classes: their names, in order; empty where they are not known. State dicts have them and the normalisation as
            notes, for no tensor shows them.
        published_top1: accuracy on ImageNet-1K that was published with its weights, percent.
        origin: where it is written, of one's own; what it raises then names it.
        logits_for: what its logits are: of a detector `softmax`, one class a region, or `dense`, each class for itself
            at every anchor; empty for a classifier, where the task decides.
    """

    published_top1: float | None = None
    origin: Origin | None = None
    logits_for = ""
    takes_scene = False  # what is known of the images beside their pixels
    mean: Tensor  # [1, 3, 1, 1], of pixels in [0, 255]
    std: Tensor

    def __init__(
        self,
        body: nn.Module,
        normalization: Normalization,
        num_classes: int,
        reads: Iterable[str] = (),
        head: Head | None = None,
    ) -> None:
        super().__init__()
        self.body = body
        self._reads = frozenset(reads)
        self._head = head or Own()
        self._classifier = classifier_of(self.network, num_classes)
        self.normalization = normalization
        self.num_classes = num_classes
        self._notes: dict[str, Any] = {_NORMALIZATION: [list(values) for values in normalization]}
        self.network.register_state_dict_post_hook(partial(_note, self._notes))
        for name, values in normalization._asdict().items():
            self.register_buffer(name, 255 * torch.tensor(values).view(1, 3, 1, 1), persistent=False)

    def normalize(self, images: Tensor, scene: Scene | None = None) -> Tensor:
        """uint8 [B, 3, H, W] -> (images / 255 - mean) / std in the parameters' precision, [B, 3, H, W]."""
        mean, std = self.mean, self.std
        if images.is_contiguous(memory_format=torch.channels_last):  # a row at once, not three channels of a pixel
            row = 1, 3, 1, images.shape[3]
            mean, std = (one.expand(row).contiguous(memory_format=torch.channels_last) for one in (mean, std))
        return images.to(mean.dtype, copy=True).sub_(mean).div_(std)

    def forward(self, images: Tensor, scene: Scene | None = None) -> Outputs:
        """images: normalised, [B, 3, H, W]; logits of the result: [B, K], empty without a classifier; features: those
        that are read."""
        outputs = self.body(images) if self.origin is None else self.origin.given(self.body, images)
        if not self._head.gives_logits:
            pooled = outputs.logits.flatten(1)
            outputs = Outputs(pooled.new_empty(0), {**outputs.features, "pooled": pooled}, outputs.context)
        features = {name: value for name, value in outputs.features.items() if name in self._reads}
        context = dict(outputs.context)
        if (last := self.classifier) is not None:
            context["head_weight"] = last.weight
            context["head_bias"] = torch.zeros_like(last.weight[:, 0]) if last.bias is None else last.bias
        made = Outputs(outputs.logits, features, context)
        if "rest" in self._reads:
            made.rest = rest_of(self, images)
        return made

    def predict(self, images: Tensor, scene: Scene | None = None) -> Outputs:
        """What it gives for uint8 images [B, 3, H, W]."""
        return self(self.normalize(images, scene), scene)

    @property
    def network(self) -> nn.Module:
        """The network itself, without taps: its state dict has the names of the library that it came from."""
        return self.body.network if isinstance(self.body, Tapped) else self.body

    @property
    def classifier(self) -> nn.Linear | None:
        """The linear layer that gives the logits."""
        last = self.network.get_submodule(self._classifier) if self._classifier else None
        assert last is None or isinstance(last, nn.Linear)
        return last

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in order; empty where they are not known."""
        return tuple(self._notes.get(_CLASSES, ()))

    @classes.setter
    def classes(self, names: Iterable[str]) -> None:
        self._notes[_CLASSES] = list(names)

    def note(self, name: str, value: Any) -> None:
        """Put a value that no tensor shows beside the names of the classes, into state dicts."""
        self._notes[name] = value

    def exported(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """A state dict of ``network`` as it is exported: without what only training needs, branches merged."""
        if has_branches(self.network):
            state = deployed(self.network, state)
        exported = self._head.exported(state)
        result, versions = OrderedDict(exported), dict(getattr(exported, "_metadata", {}))
        versions[""] = {**versions.get("", {}), **self._notes}  # an average may be older than the names of the classes
        result._metadata = versions  # type: ignore[attr-defined]
        return result


def build_network(
    config: NetworkConfig,
    num_classes: int,
    reads: Iterable[str] = (),
    side: int = 224,
    others: Mapping[str, Network] | None = None,
    *,
    new_classifier: bool = False,
    sync_bn: bool = False,
    classes: tuple[str, ...] = (),
    as_noted: bool = False,
) -> Network:
    """The network of ``config``, giving the features that ``reads`` names, for images of ``side`` x ``side`` pixels.

    A name ending in `*` reads every stage: `stage*` or `stage*_pre`. A head may take parts of ``others``. Weights for
    another number of classes are refused, as a random classifier looks like a trained one; with
    ``new_classifier``, for a network that is to be trained, it is made, which is printed. With ``sync_bn`` batch
    norms go by the samples of all ranks. ``classes`` are the names of the outputs, for heads that need them; with
    ``as_noted`` they are, and are as many as, those that the weights have a note of.

    Raises:
        UsageError: unknown name, fewer outputs than classes, weights that cannot be had or do not fit, a head that does
            not go with the network, a feature without a tap, an input size that the network does not take.
        DataError: a file of weights is damaged.
    """
    head = config.head.made()
    if config.num_classes is not None and config.num_classes < num_classes:
        raise UsageError(f"num_classes: {config.name} has {config.num_classes} outputs, the data {num_classes} classes")
    if is_detector(config.name):
        from models.detectors.network import build_detector  # which derives from `Network`

        return build_detector(config, num_classes, reads, classes, new_classifier=new_classifier, sync_bn=sync_bn)
    if not config.num_classes and not num_classes and head.gives_logits:
        raise UsageError("num_classes: the data names no classes: set student.num_classes, of a teacher likewise")
    named = file_of(config.weights)
    file = File(named[0], read_weights(*named)) if named else None
    state = file.state if file else {}
    noted = getattr(state, "_metadata", {}).get("", {})
    names = noted_classes(noted)
    if names and as_noted and config.num_classes is None:
        num_classes, classes = len(names), names
    num_classes = config.num_classes or num_classes
    if not head.gives_logits:
        num_classes = _unread(config.name, num_classes)
    asked = config.weights != "none" and not new_classifier
    if asked and not head.is_in(state):
        if head.is_exported:
            raise UsageError(f"{config.weights} has no head {config.head.name}, which would be random: train it first")
        head = Own()  # weights as they are exported need nothing else
    bare = _bare(config, num_classes, file, side, new_classifier=new_classifier)
    if is_deployed(bare.network, state):
        deploy(bare.network)

    def load(network: nn.Module) -> None:
        if file and not bare.loaded:
            load_state(network, state, file.path, num_classes, new_classifier=new_classifier)

    def synchronised(network: nn.Module) -> nn.Module:  # before taps: their hooks would stay behind
        return _synchronised(network) if sync_bn else network

    whole = synchronised(bare.network)

    def giving(*names: str) -> Body:
        return _tapped(config, whole, num_classes, side, names, reads)

    if not head.is_in(state):
        load(whole)
    backbone = Backbone(whole, num_classes, side, giving, others or {}, state, classes)
    if head.gives_logits:
        network = head.attach(backbone)
    else:
        num_classes, names = 0, ()
        with fitting_input(config.name, whole, side):
            network = head.attach(backbone)
    if isinstance(network, Behind):
        for name, child in network.named_children():
            setattr(network, name, child if name == "body" else synchronised(child))
    if head.is_in(state):
        load(network)
    default = noted_normalization(noted) or bare.normalization or IMAGENET
    normalization = Normalization(config.mean or default.mean, config.std or default.std)
    beside = ("logits",) if head.gives_logits else ("pooled",)
    body = _tapped(config, network, num_classes, side, {*reads} - {"logits", "rest"}, beside=beside)
    made = Network(body, normalization, num_classes, expanded(reads, body.features), head)
    made.published_top1, made.origin = bare.top1, bare.origin
    if names and len(names) == num_classes:
        made.classes = names
    return made


def _note(
    notes: Mapping[str, Any], _network: nn.Module, _state: object, _prefix: str, versions: dict[str, Any]
) -> None:
    """Put ``notes`` into a state dict."""
    versions.update(notes)


def noted_normalization(noted: Mapping[str, Any]) -> Normalization | None:
    """What the notes of a state dict say of the input; None where they say nothing, or are malformed."""
    parts: Any = noted.get(_NORMALIZATION)
    if not _is_list(parts, 2, list | tuple) or not all(_is_list(part, 3, float | int) for part in parts):
        return None
    return Normalization(*map(tuple, parts))


def noted_classes(noted: Mapping[str, Any]) -> tuple[str, ...]:
    """Likewise the names of the classes; none where they say nothing, or are malformed."""
    names: Any = noted.get(_CLASSES)
    return tuple(names) if isinstance(names, list | tuple) and all(isinstance(name, str) for name in names) else ()


def _is_list(value: object, length: int, kind: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) == length and all(isinstance(one, kind) for one in value)


def _synchronised(network: nn.Module) -> nn.Module:
    """``network`` with batch norms that go by the samples of all ranks."""
    if hasattr(network, "pretrained_cfg"):
        from timm.layers import convert_sync_batchnorm  # keeps the activations inside timm's norms

        return convert_sync_batchnorm(network)
    return nn.SyncBatchNorm.convert_sync_batchnorm(network)


def _bare(config: NetworkConfig, num_classes: int, file: File | None, side: int, *, new_classifier: bool) -> Library:
    """The network as it was published, with published weights where those are asked for."""
    if is_own(config.name):
        return _own(config, num_classes, file, side, trained=new_classifier)
    if config.options:
        raise UsageError(f"options: {config.name} takes none; they are for a network of your own, my_models:MyNet")
    if config.name.startswith("timm/"):
        name = config.name.removeprefix("timm/")
        return timm_network(name, "none" if file else config.weights, num_classes, side, new_classifier=new_classifier)
    if config.name not in CIFAR:
        return torchvision_network(config.name, file or config.weights, num_classes, new_classifier=new_classifier)
    _refuse_published(config, file)
    return Library(CIFAR[config.name](num_classes=num_classes))


def _own(config: NetworkConfig, num_classes: int, file: File | None, side: int, *, trained: bool) -> Library:
    """A network of the user's."""
    _refuse_published(config, file)
    if file:
        remark_changes(config.name, config.folder, file.path)
    network = own_network(config.name, config.folder, config.options, num_classes)
    origin, logits = Origin(config.name, config.folder), config.head.made().gives_logits
    return Library(network, origin=try_out(origin, network, side, num_classes, trained=trained, gives_logits=logits))


def _unread(name: str, num_classes: int) -> int:
    """For how many classes a network is made whose classifier is taken off: as many as published weights have, so that
    these load; timm makes networks without one."""
    if name.startswith("timm/"):
        return 0
    return max(1, num_classes) if is_own(name) else 1000


def _refuse_published(config: NetworkConfig, file: File | None) -> None:
    """Raises UsageError where weights are asked for that nobody has published."""
    if config.weights != "none" and not file:
        raise UsageError(f"{config.name} has no published weights {config.weights}; give {A_FILE}, or none")


def _tapped(
    config: NetworkConfig,
    network: nn.Module,
    num_classes: int,
    side: int,
    reads: Iterable[str],
    more: Iterable[str] = (),
    beside: tuple[str, ...] = ("logits",),
) -> Body:
    """``network`` as a body that gives all of ``reads``, and of the maps ``more`` those that it can; what it gives
    ``beside`` these needs no tap."""
    reads = {*reads} - {*beside}
    own = network.features if isinstance(network, Body) else ()
    named = {} if isinstance(network, Behind) else config.taps
    taps: dict[str, Tap] = {}
    with fitting_input(config.name, network, side):
        if expanded(reads, own) - {*own}:
            taps = find_taps(network, num_classes, side, named)
        else:
            run_once(network, side)
    known = (*dict.fromkeys((*own, *taps)),)
    wanted = expanded(reads, known)
    if unknown := sorted(wanted - {*known}):
        given = f"{config.name} gives no {', '.join(unknown)}; it gives {', '.join((*beside, *known))}"
        if isinstance(network, Behind):
            raise UsageError(f"{given}, and nothing else")
        raise UsageError(f'{given}. Name the module that does, such as taps={{"{unknown[0]}": "layer3.2"}}')
    if not isinstance(network, Body):
        wanted |= expanded(more, known) & {*known} - {"pooled"}
    chosen = {name: taps[name] for name in sorted(wanted) if name in taps}
    return network if isinstance(network, Body) and not chosen else Tapped(network, chosen)


@contextmanager
def fitting_input(name: str, network: nn.Module, side: int) -> Iterator[None]:
    """Report that a network does not take images of ``side`` x ``side`` pixels, whatever error it raises.

    Raises:
        UsageError: in place of the network's own error.
    """
    try:
        yield
    except (UsageError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # each library has its own
        sizes = sizes_of(name, network)
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise UsageError(
            f"data.input_size={side}: {name} does not take images of this size{sizes and f'; {sizes}'} ({reason})"
        ) from None
