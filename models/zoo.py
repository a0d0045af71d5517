"""Networks by name, with their weights and their input normalisation.

Names: `resnet34` and every other torchvision classifier; `timm/mobilenetv1_100` and every other timm classifier;
`cifar_resnet20`, `cifar_resnet8x4`, ... of `models/cifar`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from models.cifar import CIFAR
from models.fitting import load_state
from models.neck import add_embedding, embedding_of, has_embedding
from models.outputs import IMAGENET, Body, Normalization, Outputs, Tap, Tapped
from models.published import File, Library, sizes_of, timm_network, torchvision_network
from models.reused import Reused, reused_channels
from models.taps import find_taps, head_of, run_once
from models.weights import A_FILE, file_of, read_weights
from utils.errors import UsageError
from utils.settings import about, setting

_NOTE = "normalization"  # beside the version of the network in a state dict


@dataclass(frozen=True)
class NetworkConfig:
    """A network by name."""

    name: str = field(metadata=about(also=("model", "arch")))
    """resnet34 (torchvision), timm/mobilenetv1_100 (timm), cifar_resnet20 (Limbeck's own)"""
    weights: str = setting("none", also=("pretrained", "checkpoint"))
    """none, a .pth or .safetensors file, or published weights: default, or torchvision's name such as IMAGENET1K_V1;
    FILE#KEY chooses among several in a file"""
    num_classes: int | None = setting(None, least=1, most=10**6)
    """outputs; the number of classes in the data when not given"""
    mean: tuple[float, float, float] | None = setting(None, least=0, most=1)
    """input mean for pixels in [0, 1]; that of the weights where they tell (published ones, those of a run), else
    ImageNet's, when not given"""
    std: tuple[float, float, float] | None = setting(None, above=0, most=1)
    """input standard deviation, likewise"""
    embedding: int | None = setting(None, least=1, most=2**16)
    """outputs of a linear layer before the classifier, merged into it when the weights are exported; for lshfm"""
    batch_statistics: bool = False
    """of a teacher: normalise by the statistics of each batch, as the code of WSLD's authors does"""
    reuses: str | None = None
    """the teacher whose classifier it ends with, behind a projector; for simkd"""
    expect_top1: float | None = setting(None, least=0, most=100, affects_result=False)
    """of a teacher: least top-1, percent, on some validation images before the first step; three times chance when not
    given, 0 lets any teacher teach"""
    taps: dict[str, str] = field(default_factory=dict)
    """features that are not found by themselves: name (stage1, last, ...) and path of the module that gives it"""


class Network(nn.Module):
    """A classifier that normalises for itself.

    Attributes:
        normalization: what its input is normalised with; networks that share one can share the normalised images.
        num_classes: K.
        batch_statistics: whether a teacher's batch norms go by the statistics of each batch.
        published_top1: accuracy on ImageNet-1K that was published with its weights, percent.
    """

    batch_statistics = False
    published_top1: float | None = None
    mean: Tensor  # [1, 3, 1, 1], of pixels in [0, 255]
    std: Tensor

    def __init__(self, body: Body, normalization: Normalization, num_classes: int, reads: Iterable[str] = ()) -> None:
        super().__init__()
        self.body = body
        self._reads = frozenset(reads)
        self._head = head_of(self.classifier, num_classes)
        self._embedding = embedding_of(self.classifier)
        self.normalization = normalization
        self.num_classes = num_classes
        for name, values in normalization._asdict().items():
            self.register_buffer(name, 255 * torch.tensor(values).view(1, 3, 1, 1), persistent=False)

    def normalize(self, images: Tensor) -> Tensor:
        """uint8 [B, 3, H, W] -> (images / 255 - mean) / std in the parameters' precision, [B, 3, H, W]."""
        return (images - self.mean) / self.std

    def forward(self, images: Tensor) -> Outputs:
        """images: normalised, [B, 3, H, W]; logits of the result: [B, K]; features: those that are read."""
        outputs = self.body(images)
        features = {name: value for name, value in outputs.features.items() if name in self._reads}
        context = dict(outputs.context)
        if self._embedding and "pooled" in features and not isinstance(self.body, Tapped):
            features["pooled"] = self.classifier.get_submodule(self._embedding)(features["pooled"])
        if (head := self.head) is not None:
            context["head_weight"] = head.weight
            context["head_bias"] = torch.zeros_like(head.weight[:, 0]) if head.bias is None else head.bias
        return Outputs(outputs.logits, features, context)

    def predict(self, images: Tensor) -> Outputs:
        """What it gives for uint8 images [B, 3, H, W]."""
        return self(self.normalize(images))

    @property
    def classifier(self) -> nn.Module:
        """The network without its adapter: its state dict has the names of the library that it came from."""
        return self.body.network if isinstance(self.body, Tapped) else self.body

    def norms(self) -> Iterator[_BatchNorm]:
        """Its batch norms."""
        return (module for module in self.modules() if isinstance(module, _BatchNorm))

    @property
    def head(self) -> nn.Linear | None:
        """The linear layer that gives the logits."""
        head = self.classifier.get_submodule(self._head) if self._head else None
        assert head is None or isinstance(head, nn.Linear)
        return head


def build_network(
    config: NetworkConfig,
    num_classes: int,
    reads: Iterable[str] = (),
    side: int = 224,
    teachers: Mapping[str, Network] | None = None,
    *,
    new_head: bool = False,
    sync_bn: bool = False,
) -> Network:
    """The network of ``config``, giving the features that ``reads`` names, for images of ``side`` x ``side`` pixels.

    A name ending in `*` reads every stage: `stage*` or `stage*_pre`. A classifier to be reused is one of ``teachers``,
    or stands in the file of weights. Weights for another number of classes are refused, as a random last layer cannot
    be told from a trained one; with ``new_head``, for a network that is to be trained, it is made, and a line says so.
    With ``sync_bn`` batch norms go by the samples of all ranks.

    Raises:
        UsageError: unknown name, fewer outputs than classes, weights that cannot be had or do not fit, a feature
            without a tap, an input size that the network does not take.
        DataError: a file of weights is damaged.
    """
    if config.num_classes is not None and config.num_classes < num_classes:
        raise UsageError(f"num_classes: {config.name} has {config.num_classes} outputs, the data {num_classes} classes")
    num_classes = config.num_classes or num_classes
    named = file_of(config.weights)
    file = File(named[0], read_weights(*named)) if named else None
    state = file.state if file else {}
    bare = _bare(config, num_classes, file, new_head=new_head)
    network = bare.network
    # Weights are of the network as it was published, or with what is added to it here.
    added = reused_channels(state) is not None or (config.embedding is not None and has_embedding(state))
    if file and not added and not bare.loaded:
        load_state(network, state, file.path, num_classes, new_head=new_head)
    if config.embedding is not None:
        add_embedding(network, config.embedding, num_classes)
    if config.reuses is not None:
        network = _reusing(config, network, num_classes, side, teachers or {}, state)
    if file and added:
        load_state(network, state, file.path, num_classes, new_head=new_head)
    if sync_bn:
        network = nn.SyncBatchNorm.convert_sync_batchnorm(network)  # before taps: their hooks would stay behind
    noted = getattr(state, "_metadata", {}).get("", {}).get(_NOTE)
    default = Normalization(*map(tuple, noted)) if noted else bare.normalization or IMAGENET
    normalization = Normalization(config.mean or default.mean, config.std or default.std)
    body = _tapped(config, network, num_classes, set(reads) - {"logits"}, side)
    made = Network(body, normalization, num_classes, _expand(reads, body.features))
    made.published_top1 = bare.top1
    made.classifier.register_state_dict_post_hook(partial(_note_normalization, normalization))
    if config.batch_statistics:
        for norm in made.norms():
            norm.momentum = 0.0  # its own statistics stay as they are
    made.batch_statistics = config.batch_statistics
    return made


def _note_normalization(
    normalization: Normalization, _network: nn.Module, _state: object, _prefix: str, versions: dict[str, Any]
) -> None:
    """Let a state dict tell how the input was normalised: no tensor in it does."""
    versions[_NOTE] = [list(values) for values in normalization]


def _bare(config: NetworkConfig, num_classes: int, file: File | None, *, new_head: bool) -> Library:
    """The network as it was published, with published weights where those are asked for."""
    if config.name.startswith("timm/"):
        name = config.name.removeprefix("timm/")
        return timm_network(name, "none" if file else config.weights, num_classes, new_head=new_head)
    if config.name not in CIFAR:
        return torchvision_network(config.name, file or config.weights, num_classes, new_head=new_head)
    if config.weights != "none" and not file:
        raise UsageError(f"{config.name} has no published weights {config.weights}; give {A_FILE}, or none")
    return Library(CIFAR[config.name](num_classes=num_classes))


def _reusing(
    config: NetworkConfig,
    network: nn.Module,
    num_classes: int,
    side: int,
    teachers: Mapping[str, Network],
    state: Mapping[str, Tensor],
) -> Reused:
    """``network`` with the classifier of one of ``teachers``, or shaped for the one in ``state``."""
    assert config.reuses is not None
    if config.embedding is not None:
        raise UsageError("reuses and embedding: the teacher's classifier has no room for an embedding; set one of them")
    body = _tapped(config, network, num_classes, {"last"}, side)
    teacher = teachers.get(config.reuses)
    if teacher is None:
        if (channels := reused_channels(state)) is None:
            others = ", ".join(teachers) or "none"
            raise UsageError(
                f"reuses: no teacher {config.reuses!r} (there is {others}), and no weights that hold its classifier"
            )
        return Reused(body, channels, num_classes, side)
    if teacher.head is None:
        raise UsageError(f"reuses: {config.reuses} has no linear classifier")
    if teacher.num_classes != num_classes:
        raise UsageError(f"reuses: {config.reuses} has {teacher.num_classes} outputs, the student {num_classes}")
    reused = Reused(body, teacher.head.in_features, num_classes, side)
    reused.reuse(teacher.head)
    return reused


def _tapped(config: NetworkConfig, network: nn.Module, num_classes: int, reads: set[str], side: int) -> Body:
    """``network`` as a body that gives all of ``reads``."""
    taps: dict[str, Tap] = {}
    with fitting_input(config.name, network, side):
        if reads and not isinstance(network, Body):
            taps = find_taps(network, num_classes, side, config.taps)
        else:
            run_once(network, side)
    known = network.features if isinstance(network, Body) else tuple(taps)
    wanted = _expand(reads, known)
    if unknown := sorted(wanted - set(known)):
        given = f"{config.name} gives no {', '.join(unknown)}; it gives {', '.join(('logits', *known))}"
        if isinstance(network, Body):
            raise UsageError(f"{given}, and nothing else")
        raise UsageError(f'{given}. Name the module that does, such as taps={{"{unknown[0]}": "layer3.2"}}')
    return network if isinstance(network, Body) else Tapped(network, {name: taps[name] for name in sorted(wanted)})


@contextmanager
def fitting_input(name: str, network: nn.Module, side: int) -> Iterator[None]:
    """Say that a network does not take images of ``side`` x ``side`` pixels, whatever it raises when it is given one.

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


def _expand(reads: Iterable[str], known: Iterable[str]) -> frozenset[str]:
    """``reads`` with `stage*` and `stage*_pre` spelt out."""
    spelt = ((name, [one for one in known if re.fullmatch(name.replace("*", r"\d+"), one)]) for name in reads)
    return frozenset(one for name, some in spelt for one in (some or [name]))
