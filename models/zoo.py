"""Networks by name, with their weights and their input normalisation.

Names: `resnet34` and every other torchvision classifier; `timm/mobilenetv1_100` and every other timm classifier;
`cifar_resnet20`, `cifar_resnet8x4`, ... of `models/cifar`.
"""

from __future__ import annotations

import difflib
import re
import urllib.error
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
import torchvision
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from models.cifar import CIFAR
from models.neck import add_embedding, embedding_of, has_embedding
from models.outputs import IMAGENET, Body, Normalization, Outputs, Tap, Tapped
from models.reused import Reused, reused_channels
from models.taps import find_taps, head_of
from utils.errors import UsageError
from utils.settings import about, setting

_A_FILE = "a .pth or .safetensors file"


@dataclass(frozen=True)
class NetworkConfig:
    """A network by name."""

    name: str = field(metadata=about(also=("model", "arch")))
    """resnet34 (torchvision), timm/mobilenetv1_100 (timm), cifar_resnet20 (Limbeck's own)"""
    weights: str = setting("none", also=("pretrained", "checkpoint"))
    """none, a .pth or .safetensors file, or published weights: default, or torchvision's name such as IMAGENET1K_V1"""
    num_classes: int | None = setting(None, least=1, most=10**6)
    """outputs; the number of classes in the data when not given"""
    mean: tuple[float, float, float] | None = setting(None, least=0, most=1)
    """input mean for pixels in [0, 1]; that of the published weights, else ImageNet's, when not given"""
    std: tuple[float, float, float] | None = setting(None, above=0, most=1)
    """input standard deviation, likewise"""
    embedding: int | None = setting(None, least=1, most=2**16)
    """outputs of a linear layer before the classifier, merged into it when the weights are exported; for lshfm"""
    batch_statistics: bool = False
    """of a teacher: normalise by the statistics of each batch, as the code of WSLD's authors does"""
    reuses: str | None = None
    """the teacher whose classifier it ends with, behind a projector; for simkd"""
    taps: dict[str, str] = field(default_factory=dict)
    """features that are not found by themselves: name (stage1, last, ...) and path of the module that gives it"""


class Network(nn.Module):
    """A classifier that normalises for itself.

    Attributes:
        normalization: what its input is normalised with; networks that share one can share the normalised images.
        num_classes: K.
        batch_statistics: whether a teacher's batch norms go by the statistics of each batch.
    """

    batch_statistics = False
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

    def score(self, images: Tensor) -> Tensor:
        """Logits [B, K] of uint8 images [B, 3, H, W]."""
        return self(self.normalize(images)).logits

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
    sync_bn: bool = False,
) -> Network:
    """The network of ``config``, giving the features that ``reads`` names, for images of ``side`` x ``side`` pixels.

    A name ending in `*` reads every stage: `stage*` or `stage*_pre`. A classifier to be reused is one of ``teachers``,
    or stands in the file of weights. With ``sync_bn`` batch norms go by the samples of all ranks.

    Raises:
        UsageError: unknown name, weights that cannot be had or do not fit, a feature without a tap.
    """
    num_classes = config.num_classes or num_classes
    network, published = _bare(config, num_classes)
    file = Path(config.weights).expanduser() if _is_file(config.weights) else None
    state = read_weights(file) if file else {}
    # Weights are of the network as it was published, or with what is added to it here.
    added = reused_channels(state) is not None or (config.embedding is not None and has_embedding(state))
    if file and not added:
        load_weights(network, file)
    if config.embedding is not None:
        add_embedding(network, config.embedding, num_classes)
    if config.reuses is not None:
        network = _reusing(config, network, num_classes, side, teachers or {}, state)
    if file and added:
        load_weights(network, file)
    if sync_bn:
        network = nn.SyncBatchNorm.convert_sync_batchnorm(network)  # before taps: their hooks would stay behind
    default = published or IMAGENET
    normalization = Normalization(config.mean or default.mean, config.std or default.std)
    body = _tapped(config, network, num_classes, set(reads) - {"logits"}, side)
    made = Network(body, normalization, num_classes, _expand(reads, body.features))
    if config.batch_statistics:
        for norm in made.norms():
            norm.momentum = 0.0  # its own statistics stay as they are
    made.batch_statistics = config.batch_statistics
    return made


def _bare(config: NetworkConfig, num_classes: int) -> tuple[nn.Module, Normalization | None]:
    """The network as it was published, with published weights where those are asked for, and their normalisation."""
    if config.name.startswith("timm/"):
        return _timm_network(config, num_classes)
    if config.name not in CIFAR:
        return _torchvision_network(config, num_classes)
    if config.weights != "none" and not _is_file(config.weights):
        raise UsageError(f"{config.name} has no published weights; give {_A_FILE}, or none")
    return CIFAR[config.name](num_classes=num_classes), None


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
    if not isinstance(network, Body) and reads:
        taps = find_taps(network, num_classes, side, config.taps)
    known = network.features if isinstance(network, Body) else tuple(taps)
    wanted = _expand(reads, known)
    if unknown := sorted(wanted - set(known)):
        given = f"{config.name} gives no {', '.join(unknown)}; it gives {', '.join(('logits', *known))}"
        if isinstance(network, Body):
            raise UsageError(f"{given}, and nothing else")
        raise UsageError(f'{given}. Name the module that does, such as taps={{"{unknown[0]}": "layer3.2"}}')
    return network if isinstance(network, Body) else Tapped(network, {name: taps[name] for name in sorted(wanted)})


def _expand(reads: Iterable[str], known: Iterable[str]) -> frozenset[str]:
    """``reads`` with `stage*` and `stage*_pre` spelt out."""
    spelt = ((name, [one for one in known if re.fullmatch(name.replace("*", r"\d+"), one)]) for name in reads)
    return frozenset(one for name, some in spelt for one in (some or [name]))


def read_weights(path: Path) -> dict[str, Tensor]:
    """The state dict in a file, also under `state_dict` or `model`, also with `module.` prefixes.

    Raises:
        UsageError: the file cannot be read, or holds none.
    """
    if path.is_dir():
        raise UsageError(f"{path} is a folder; name a file in it, of a run student.safetensors")
    try:
        state: Any
        if path.suffix == ".safetensors":
            state = safetensors.torch.load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        of_a_run = path.name == "student.safetensors"
        do = f"train the run {path.parent.name} first" if of_a_run else "put the weights there"
        raise UsageError(f"{path}: no such file; {do} or give another path") from None
    except Exception as error:  # a damaged pickle may raise any
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise UsageError(f"{path}: not a weights file that can be read safely: {reason}") from None
    for wrapper in ("state_dict", "model", "ema", "student"):  # the last two are those of a run's own checkpoints
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    if not isinstance(state, dict) or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in state.items()):
        raise UsageError(f"{path} holds no state dict")
    return {name.removeprefix("module."): value for name, value in state.items()}


def load_weights(network: nn.Module, path: Path) -> None:
    """Load the state dict in a file into ``network``.

    Raises:
        UsageError: the file cannot be read, or its names or shapes do not fit; every one is named.
    """
    state = read_weights(path)
    wanted = network.state_dict()
    # Files from before PyTorch 0.4.1 lack the batch counters.
    missing = sorted(name for name in wanted.keys() - state.keys() if not name.endswith("num_batches_tracked"))
    unexpected = sorted(state.keys() - wanted.keys())
    shapes = [
        f"{name}: {tuple(state[name].shape)} in the file, {tuple(wanted[name].shape)} in the network"
        for name in sorted(wanted.keys() & state.keys())
        if state[name].shape != wanted[name].shape
    ]
    if missing or unexpected or shapes:
        parts = [
            f"{label}: {', '.join(names[:8])}{f' and {len(names) - 8} more' if len(names) > 8 else ''}"
            for label, names in (("missing", missing), ("unexpected", unexpected), ("other shapes", shapes))
            if names
        ]
        raise UsageError(f"{path} does not fit {type(network).__name__}; {'; '.join(parts)}")
    network.load_state_dict(state, strict=False)


def _torchvision_network(config: NetworkConfig, num_classes: int) -> tuple[nn.Module, Normalization | None]:
    names = torchvision.models.list_models(module=torchvision.models)
    if config.name not in names:
        near = _near(config.name, [*names, *CIFAR])
        raise UsageError(f"no network {config.name!r}{near}; timm's begin with timm/")
    weights = None
    if config.weights != "none" and not _is_file(config.weights):
        published = torchvision.models.get_model_weights(config.name)
        name = "DEFAULT" if config.weights == "default" else config.weights
        if name not in published.__members__:
            known = ", ".join(published.__members__)
            raise UsageError(f"{config.name} has no weights {name}; torchvision has {known}; or give {_A_FILE}")
        weights = published[name]
    network = torchvision.models.get_model(config.name, weights=None, num_classes=num_classes)
    if weights is None:
        return network, None
    target = Path(torch.hub.get_dir(), "checkpoints", weights.url.rsplit("/", 1)[1])
    try:
        state = weights.get_state_dict(progress=True, check_hash=True)
    except (urllib.error.URLError, OSError, RuntimeError) as error:
        raise UsageError(
            f"cannot download {weights.url} ({error}): fetch it elsewhere and put it at {target}"
        ) from None
    _load_published(network, state, config, target)
    transforms = weights.transforms()
    return network, Normalization(tuple(transforms.mean), tuple(transforms.std))


def _load_published(network: nn.Module, state: dict[str, Tensor], config: NetworkConfig, path: Path) -> None:
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise UsageError(f"{path} does not fit {config.name}: {' '.join(str(error).split())}") from None


def _timm_network(config: NetworkConfig, num_classes: int) -> tuple[nn.Module, Normalization | None]:
    try:
        import timm
    except ImportError:
        raise UsageError(f"{config.name} needs timm: pip install timm") from None
    name = config.name.removeprefix("timm/")
    published = config.weights == "default"
    if not published and config.weights != "none" and not _is_file(config.weights):
        raise UsageError(f"{config.name} has no weights {config.weights}; give default, {_A_FILE}, or none")
    try:
        network = timm.create_model(name, pretrained=published, num_classes=num_classes)
    except (RuntimeError, OSError) as error:
        first = " ".join(str(error).split())[:300]
        if published and timm.is_model(name):
            source = timm.get_pretrained_cfg(name)
            raise UsageError(
                f"cannot get timm's weights of {name} ({first}): fetch {source and source.hf_hub_id} elsewhere "
                "and set weights to the file's path"
            ) from None
        raise UsageError(f"no network {config.name!r}: {first}{_near(name, timm.list_models())}") from None
    pretrained: Any = network.pretrained_cfg
    return network, Normalization(tuple(pretrained["mean"]), tuple(pretrained["std"]))


def _is_file(weights: str) -> bool:
    return "/" in weights or weights.endswith((".pth", ".pt", ".th", ".tar", ".safetensors"))


def _near(name: str, names: list[str]) -> str:
    near = difflib.get_close_matches(name, names, n=3)
    return f"; near: {', '.join(near)}" if near else ""
