"""The outputs of a run folder's networks on its data. N images, D dimensions, K classes; O objects in an image."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from dataset.feed.stored import in_stored_pixels
from dataset.feed.targets import Objects
from dataset.loader import DataConfig, EvalLoader, open_split
from models.outputs import Scene
from models.zoo import Network, NetworkConfig, build_network
from old_names import as_today
from training.state import best_weights
from utils.config import restore
from utils.console import progress
from utils.errors import DataError, UsageError


@dataclass(frozen=True)
class NetworkOutputs:
    """A network's outputs, on the CPU."""

    name: str
    pooled: np.ndarray  # float32 [N, D]
    logits: np.ndarray  # float32 [N, K]
    labels: np.ndarray  # int64 [N]
    classes: tuple[str, ...]


def outputs_of_run(
    run: Path, *, teachers: bool, images: int | None = None, split: Literal["train", "val"] = "val"
) -> list[NetworkOutputs]:
    """The best student of ``run``, and with ``teachers`` each of its teachers, on images as in validation.

    Args:
        run: a run folder.
        teachers: whether their outputs are wanted too.
        images: how many, spread over the split; all when not given.
        split: whether the images are the validation images or the training images, these without augmentation.

    Raises:
        UsageError: the folder is no run, or has no checkpoint yet.
        DataError: its data cannot be read.
    """
    config, data = _config_of(run)
    folder, kind = (
        (data.train_split, data.train_data_type) if split == "train" else (data.val_split, data.val_data_type)
    )
    samples = open_split(data, folder, kind)
    if samples.labels.ndim > 1:
        raise UsageError(f"{run}: its images have several labels each, and this picture is of one")
    configs = {"student": {**config["student"], "weights": best_weights(run / "best.pt")}}
    if teachers:
        configs |= config["teachers"]
    networks = {name: restore(NetworkConfig, values)[0] for name, values in configs.items()}
    device = _device()
    loader = EvalLoader(samples, data, 0, 1, device)
    try:
        built = {
            name: build_network(one, len(samples.classes), ["pooled"], data.input_size).to(device).eval()
            for name, one in networks.items()
        }
        chosen = loader.spread(images) if images else loader
        return [_outputs(name, network, chosen) for name, network in built.items()]
    finally:
        loader.close()


class Photo(NamedTuple):
    """A validation image with its objects, in pixels of the stored image."""

    key: str
    pixels: np.ndarray  # uint8 [H, W, 3], as the network sees it
    window: np.ndarray  # float64 [4], top, left, height and width of what of the image that is
    boxes: np.ndarray  # float64 [O, 4]
    classes: np.ndarray  # int64 [O]
    ignored: np.ndarray  # bool [O], whether it is difficult, or a crowd


class Detected(NamedTuple):
    """What a detector finds in a photo: D detections, best first."""

    boxes: np.ndarray  # float64 [D, 4], pixels of the stored image
    classes: np.ndarray  # int64 [D]
    scores: np.ndarray  # float32 [D]


class Detections(NamedTuple):
    """What the best student of a run finds in N of its validation images."""

    photos: list[Photo]  # N
    detected: list[Detected]  # N
    classes: tuple[str, ...]
    split: list[str]  # keys of all validation images


def detections_of_run(run: Path, images: int) -> Detections:
    """What the best student of ``run``, a detector, finds in validation images that are spread over the split.

    Args:
        run: a run folder.
        images: N, at most.

    Raises:
        UsageError: the folder is no run of a detector, or has no checkpoint yet.
        DataError: its data cannot be read.
    """
    config, data = _config_of(run)
    if config.get("task") != "detection":
        raise UsageError(f"{run} is no run of a detector: its task is {config.get('task', 'single_label')}")
    samples = open_split(data, data.val_split, data.val_data_type)
    options = config["task_options"]
    most = options.get("most_objects", 500)
    targets = Objects(len(samples.classes), most=most, difficult="ignore", least_shown=0.0)
    device = _device()
    loader = EvalLoader(samples, data, 0, 1, device, targets)
    try:
        student = {**config["student"], "weights": best_weights(run / "best.pt")}
        network = build_network(
            restore(NetworkConfig, student)[0], len(samples.classes), side=data.val_side, classes=tuple(samples.classes)
        )
        keys = list(samples.keys())
        seen = _detections(network.to(device).eval(), loader.spread(images), keys)
    finally:
        loader.close()
    photos, detected = (list(some) for some in zip(*(seen[index] for index in sorted(seen))))
    return Detections(photos, detected, tuple(samples.classes), keys)


@torch.no_grad()
def _detections(network: Network, loader: EvalLoader, keys: Sequence[str]) -> dict[int, tuple[Photo, Detected]]:
    """Photos and what is found in them, by index."""
    seen = {}
    for batch in progress(iterable=loader, desc="student", total=len(loader), unit="batch"):
        scene = Scene(batch.sizes, batch.targets, batch.index)
        found = {name: value.cpu().numpy() for name, value in network.predict(batch["images"], scene).context.items()}
        known = {name: value.cpu().numpy() for name, value in batch.named.items()}
        boxes = in_stored_pixels(found["boxes"], known["windows"], known["sizes"])
        for row, index in enumerate(known["index"].tolist()):
            high, wide = known["sizes"][row]
            here, there = known["classes"][row] >= 0, found["classes"][row] >= 0
            pixels = known["images"][row, :, :high, :wide].transpose(1, 2, 0).copy()
            ignored = known["crowd"][row, here] | known["difficult"][row, here]
            objects = known["original_boxes"][row, here], known["classes"][row, here], ignored
            photo = Photo(keys[index], pixels, known["windows"][row], *objects)
            seen[index] = photo, Detected(boxes[row, there], found["classes"][row, there], found["scores"][row, there])
    return seen


def _config_of(run: Path) -> tuple[dict[str, Any], DataConfig]:
    """The config of a run that has a checkpoint, and what it says of its data."""
    path = run / "config.json"
    if not path.exists() or not (run / "best.pt").exists():
        raise UsageError(f"{run} is not a run folder with a best.pt: train it for an epoch first")
    try:
        config = as_today(json.loads(path.read_bytes()))
        return config, restore(DataConfig, config["data"])[0]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DataError(f"{path} is damaged, or of another version ({error})") from None


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@torch.no_grad()
def _outputs(name: str, network: Network, loader: EvalLoader) -> NetworkOutputs:
    rows: dict[str, list[Tensor]] = {"pooled": [], "logits": [], "labels": []}
    for batch in progress(iterable=loader, desc=name, total=len(loader), unit="batch"):
        outputs = network(network.normalize(batch["images"]))
        for key, value in {**outputs.features, "logits": outputs.logits, "labels": batch["labels"]}.items():
            rows[key].append(value.cpu().clone())
    pooled, logits, labels = (torch.cat(rows[key]).numpy() for key in ("pooled", "logits", "labels"))
    return NetworkOutputs(name, pooled, logits, labels, loader.samples.classes)
