"""Weights into a network: beginnings of names, versions of modules, and a classifier for other classes.

K classes.
"""

from __future__ import annotations

import sys
from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from models.taps import NoClassifier, classifier_of
from models.weights import is_averaged, print_choice, read_weights
from utils.distributed import print_on_first
from utils.errors import UsageError

_COUNTER = "num_batches_tracked"  # files from before PyTorch 0.4.1 lack it


def load_weights(network: nn.Module, path: Path, part: str = "") -> None:
    """Load a state dict of a file into ``network``.

    Raises:
        UsageError: the file cannot be read, or its names or shapes do not fit; every one is named.
        DataError: it is damaged.
    """
    load_state(network, read_weights(path, part), path)


def load_state(
    network: nn.Module,
    state: Mapping[str, Tensor],
    path: Path,
    num_classes: int = 0,
    *,
    new_classifier: bool = False,
) -> None:
    """Load ``state``, which stands in the file ``path``, into ``network``.

    What its names have in front of the network's (`module.`, `model.`, ...) is taken off.

    Args:
        network: what is loaded.
        state: as `read_weights` gives it.
        path: for messages.
        num_classes: K, of the network.
        new_classifier: where the file's classifier is for another number of classes, or missing, that of ``network``
            stays as it is, which is printed.

    Raises:
        UsageError: names or shapes do not fit; every one is named. A tensor is sparse, quantised, of whole numbers or
            not finite.
    """
    wanted = network.state_dict()
    prefix, others = _prefix(state, wanted, path)
    names = [name for name in state if name.startswith(prefix) and not name.startswith(others)]
    given: Mapping[str, Tensor] = {name.removeprefix(prefix): state[name] for name in names}
    given = _as_timm(network, given)
    absent = _absent(network, given)
    given = {name: value for name, value in given.items() if not name.startswith(absent)}
    other = [name for name in given if name in wanted and given[name].shape != wanted[name].shape]
    new = {name for name in other if differ_in_classes(given[name], wanted[name], num_classes)}
    last = {name for name in wanted if name.startswith(f"{classifier_of(network, num_classes)}.")}
    if last and last == {name for name in wanted.keys() - given.keys() if not name.endswith(_COUNTER)}:
        new = last
    if new and new.issuperset(other):
        had = next((given[name].shape[0] for name in new if name in given), 0)
        check_classes(str(path), had, num_classes, new_classifier=new_classifier)
        other = []
    for name, value in given.items():
        if name in wanted and wanted[name].is_floating_point() and (kind := _unfit(value)):
            raise UsageError(f"{path}: {name} {kind}")
    fitting = OrderedDict((name, value) for name, value in given.items() if name not in new)
    versions = {f"{name}.".removeprefix(prefix)[:-1]: one for name, one in getattr(state, "_metadata", {}).items()}
    # MNASNet refuses a state dict without a version.
    fitting._metadata = {"": wanted._metadata[""], **versions}  # type: ignore[attr-defined]
    missing, unexpected = wanted.keys() - given.keys(), given.keys() - wanted.keys()
    if not other:
        missing, unexpected = map(set, network.load_state_dict(fitting, strict=False))  # knows names of old versions
    shapes = [f"{name}: {_shape(given[name])} in the file, {_shape(wanted[name])} in the network" for name in other]
    lacking = [name for name in missing - new if not name.endswith(_COUNTER)]
    parts = {"missing": lacking, "unexpected": unexpected, "other shapes": shapes}
    if wrong := [f"{label}: {_some(sorted(names))}" for label, names in parts.items() if names]:
        below = f", its names below {prefix[:-1]}," if prefix else ""
        raise UsageError(f"{path}{below} does not fit {type(network).__name__}; {'; '.join(wrong)}")


def _unfit(value: Tensor) -> str:
    """What keeps the tensor of a file from being copied into a network as it is; empty for nothing."""
    if value.is_meta:
        return "is a tensor of the meta device, which holds no values"
    if value.layout != torch.strided or value.is_quantized or not value.is_floating_point():
        kind = " ".join(str(one).removeprefix("torch.") for one in (value.layout, value.dtype))
        return f"is a {kind} tensor: save it as a dense one of float32"
    if not value.float().isfinite().all():
        return "is not finite: the training that wrote it diverged, or it overflowed"
    return ""


def differ_in_classes(one: Tensor, other: Tensor, num_classes: int) -> bool:
    """Whether ``other`` is of a classifier for K classes, and ``one`` of the same for others."""
    return other.ndim > 0 and other.shape[0] == num_classes != one.shape[0] and one.shape[1:] == other.shape[1:]


def check_classes(source: str, outputs: int, num_classes: int, *, new_classifier: bool) -> None:
    """Print that weights for another number of classes get a new classifier, or refuse them.

    Raises:
        UsageError: without ``new_classifier``.
    """
    have = f"{source} has {outputs} outputs" if outputs else f"{source} has no classifier"
    if not new_classifier:
        as_it_is = (
            f", or keep all its outputs with num_classes={outputs}, where the data's labels are the first of them "
            "(of ImageNet's 1000: mk_img_list.py --class_list imagenet)"
            if outputs > num_classes
            else ""
        )
        raise UsageError(
            f"{have}, {num_classes} are asked for: another classifier would be random. Train it on these classes "
            "first, with --cfg configs/imagenet.py method=none, and give "
            f"weights=runs/NAME/student.safetensors{as_it_is}"
        )
    print_on_first(f"{have}, {num_classes} are asked for: its classifier is new, all else is as in the weights")


def _prefix(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor], path: Path) -> tuple[str, tuple[str, ...]]:
    """What stands in front of the names in ``wanted``, and in front of other weights with all these names."""
    counts: Counter[str] = Counter()
    for name in state:
        parts = name.split(".")
        for start in range(len(parts)):
            if (end := ".".join(parts[start:])) in wanted and not end.endswith(_COUNTER):
                counts[name.removesuffix(end)] += 1
    best = sorted(prefix for prefix, count in counts.items() if count == max(counts.values())) or [""]
    averaged, others = ([prefix[:-1] for prefix in best if is_averaged(prefix) is kind] for kind in (True, False))
    if len(averaged) == len(others) == 1:
        used, other = (averaged + others) if others[0] else (others + averaged)  # a plain one has no name to choose
        print_choice(path, used, other)
        return (f"{used}.", ()) if used else ("", (f"{other}.",))
    if len(best) > 1 and best[0]:
        alike = " and ".join(prefix[:-1] for prefix in best)
        raise UsageError(f"{path} holds weights below {alike}: choose, such as weights={path}#{best[0][:-1]}")
    return best[0], ()


def _as_timm(network: nn.Module, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """``state`` with the names and the position embeddings of ``network``, where that is a transformer of timm's.

    timm's own rules bring those of other codes, as DINOv2's, to its names, and embeddings to its size of images.
    """
    rules = getattr(sys.modules[type(network).__module__], "checkpoint_filter_fn", None)
    held, wanted = state.get("pos_embed"), getattr(network, "pos_embed", None)
    if rules is None or held is None or ("mask_token" not in state and getattr(wanted, "shape", None) == held.shape):
        return state
    try:
        return dict(rules(dict(state), network))
    except Exception:  # what does not fit at all is named when it is loaded
        return state


def _absent(network: nn.Module, names: Iterable[str]) -> tuple[str, ...]:
    """What stands before those of the ``names`` that are of parts which the network can do without and has not: a
    classifier, or what only helps to train it."""
    taken_off = [path for path, module in network.named_modules() if isinstance(module, NoClassifier)]
    parts = {name.partition(".")[0] for name in names}
    return tuple(f"{path}." for path in (*taken_off, *(one for one in parts if getattr(network, one, network) is None)))


def _shape(value: Tensor) -> tuple[int, ...]:
    return tuple(value.shape)


def _some(names: list[str]) -> str:
    return f"{', '.join(names[:8])}{f' and {len(names) - 8} more' if len(names) > 8 else ''}"
