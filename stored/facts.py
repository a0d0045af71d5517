"""What a teacher's outputs for the views of a split depend on, by name: a store of others is refused."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from typing import Any

from dataset.config import PIXELS, DataConfig
from dataset.store.samples import Samples
from models.detectors import is_detector
from models.own import is_own
from models.weights import file_of
from models.zoo import NetworkConfig
from utils.errors import UsageError
from utils.files import sha256
from utils.imports import sources_of

# Settings without an effect on a view, or on what a teacher gives for it.
_FREE_OF_DATA = frozenset(
    (
        *("data_path", "batch_size", "num_workers", "train_data_type", "val_data_type", "train_split", "val_split"),
        *("epochs_of_views", "cache_path", "cache_gb", "on_fault", "worker_timeout"),
        *("val_crop", "val_resize", "val_batch_size", "strong_view"),
    )
)
# Settings that stores of older versions know nothing of; at their defaults these views are the same.
_LATER = frozenset(("auto_augment", "ra_magnitude", "ra_magnitude_std", "random_erase", "erase_mode", "repeats"))
_OF_ORDER = ("order", "open_shards")  # which only mixed images depend on
_FREE_OF_TEACHER = frozenset(("weights", "store", "mixed", "on_damage", "expect", "options", "folder"))


def facts_of_store(
    data: DataConfig,
    samples: Samples,
    seed: int,
    amp: str,
    teacher: NetworkConfig,
    reads: Iterable[str],
    key: str,
    *,
    mixed: bool,
) -> dict[str, Any]:
    """What the outputs of ``teacher`` that ``reads`` names depend on; JSON values by dotted names.

    Args:
        data: how the training split is shown.
        samples: it.
        seed: of the views.
        amp: precision of the networks.
        teacher: its settings.
        reads: what is kept of its outputs.
        key: of the teacher, for messages.
        mixed: whether they are of mixed images, where the data has some.

    Raises:
        UsageError: the file of its weights is missing, or images are shown several times in an epoch.
    """
    if data.repeats > 1:
        raise UsageError(
            f"{key}.store: data.repeats={data.repeats} shows an image several times in an epoch, and a store keeps one "
            f"view of each: set data.repeats=1, or leave {key}.store out"
        )
    plain = DataConfig(data.data_path)
    shown = {name: value for name, value in asdict(data).items() if name not in _FREE_OF_DATA}
    shown = {name: value for name, value in shown.items() if name not in _LATER or value != getattr(plain, name)}
    if not (mixed and (data.mixup or data.cutmix)):
        shown |= dict.fromkeys(("mixup", "cutmix"), 0.0)
        shown = {name: value for name, value in shown.items() if name not in _OF_ORDER}
    network = {name: value for name, value in asdict(teacher).items() if name not in _FREE_OF_TEACHER}
    if "layout" in network:
        network["layout"] = _layout_of(teacher, network["layout"])
    if is_own(teacher.name):
        network |= {"options": teacher.options, "code": sources_of(teacher.name, teacher.folder)}
    parts: dict[str, Any] = {
        "data": shown,
        "split": {"sha256": samples.digest(), "classes": list(samples.classes), "images": len(samples)},
        "seed": seed,
        "pixels": PIXELS,
        "amp": amp,
        "outputs": sorted(reads),
        "teacher": {**network, "weights": weights_of(teacher.weights, key)},
    }
    return dict(_flat(parts))


def _layout_of(teacher: NetworkConfig, layout: dict[str, Any]) -> dict[str, Any]:
    """The settings of a layout that have an effect on what is kept of a ``teacher``."""
    if is_detector(teacher.name):
        return {"detections": layout["detections"] or teacher.detector.detections}
    return {name: value for name, value in layout.items() if name != "detections"}


def weights_of(weights: str, key: str) -> str:
    """Which weights a setting stands for, by the content of a file or the name of published ones.

    Raises:
        UsageError: the file is missing, or there are none.
    """
    if weights == "none":
        raise UsageError(f"{key}.weights=none: outputs of weights that nothing has trained are not stored")
    found = file_of(weights)
    if found is None:
        return weights
    path, part = found
    try:
        return f"sha256 {sha256(path)}{part and f', {part}'}"
    except OSError as error:
        raise UsageError(
            f"{key}.weights: {path} cannot be read ({error.strerror}): its content says whether the store is of it"
        ) from None


def _flat(values: Mapping[str, Any], start: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{start}{name}.")
        else:
            yield f"{start}{name}", json.loads(json.dumps(value))
