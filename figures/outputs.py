"""The outputs of a run folder's networks on its data. N images, D dimensions, K classes; O objects in an image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from dataset.feed.batch import Batch
from dataset.feed.stored import in_stored_pixels
from dataset.feed.targets import Objects
from dataset.loader import DataConfig, EvalLoader, open_split
from dataset.store.samples import Samples
from figures import log
from models.outputs import Scene
from models.zoo import Network, NetworkConfig, build_network
from teachers import Live, TeacherConfig, build_teacher
from training.state import best_weights
from utils.config import restore
from utils.console import progress
from utils.errors import DataError, UsageError


@dataclass(frozen=True)
class NetworkOutputs:
    """A network's outputs, on the CPU."""

    name: str
    pooled: np.ndarray  # float32 [N, D]
    logits: np.ndarray  # float32 [N, K], [N, 0] of a network without a classifier
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
        UsageError: the folder is no run, or has no checkpoint yet; its images have no labels; or a teacher lacks some
            of the classes.
        DataError: its data cannot be read.
    """
    config, data = _config_of(run)
    folder, kind = (
        (data.train_split, data.train_data_type) if split == "train" else (data.val_split, data.val_data_type)
    )
    samples = open_split(data, folder, kind)
    check_labelled(samples, f"{run}: its {'validation' if split == 'val' else 'training'} images")
    if samples.labels.ndim > 1:
        raise UsageError(f"{run}: its images have several labels each, and this picture is of one")
    networks: dict[str, NetworkConfig] = {"student": student_of(config, run)}
    if teachers:
        networks |= {name: restore(TeacherConfig, values)[0] for name, values in config["teachers"].items()}
    device = _device()
    loader = EvalLoader(samples, data, 0, 1, device)
    try:
        built = {
            name: build_teacher(one, samples.classes, ["pooled"], data.val_side, name).to(device).eval()
            for name, one in networks.items()
        }
        chosen = loader.spread(images) if images else loader
        return [_outputs(name, network, chosen) for name, network in built.items()]
    finally:
        loader.close()


def check_labelled(samples: Samples, called: str) -> None:
    """Raises UsageError where the images, as a message has them ``called``, have no labels."""
    if samples.unlabelled:
        raise UsageError(f"{called} have no labels, which pictures of what networks give need")


def student_of(config: dict[str, Any], run: Path) -> NetworkConfig:
    """The best student of a run, by its ``config``.

    Raises:
        DataError: its checkpoint is damaged.
    """
    return restore(NetworkConfig, {**config["student"], "weights": best_weights(run / "best.pt")})[0]


class Photo(NamedTuple):
    """A validation image with its objects, in pixels of the stored image."""

    key: str
    pixels: np.ndarray  # uint8 [H, W, 3], as the network sees it
    window: np.ndarray  # float64 [4], top, left, height and width of what of the image that is
    boxes: np.ndarray  # float64 [O, 4]
    classes: np.ndarray  # int64 [O]
    ignored: np.ndarray  # bool [O], whether it is difficult, or a crowd


class Truth(NamedTuple):
    """The O objects of an image, in pixels of the stored image."""

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
        student, classes = student_of(config, run), tuple(samples.classes)
        network = build_network(student, len(classes), side=data.val_side, classes=classes)
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
        found = detected(network.predict(batch["images"], scene).context, batch)
        images, windows, sizes = (batch[name].cpu().numpy() for name in ("images", "windows", "sizes"))
        for row, (index, truth, one) in enumerate(zip(batch.index.tolist(), truths(batch), found)):
            high, wide = sizes[row]
            pixels = images[row, :, :high, :wide].transpose(1, 2, 0).copy()  # the loader uses its memory again
            seen[index] = Photo(keys[index], pixels, windows[row].copy(), *truth), one
    _check_read(len(seen))
    return seen


def truths(batch: Batch) -> Iterator[Truth]:
    """What is in each image of a batch."""
    known = {name: value.cpu().numpy() for name, value in batch.targets.items()}
    for row, classes in enumerate(known["classes"]):
        here = classes >= 0
        ignored = known["crowd"][row, here] | known["difficult"][row, here]
        yield Truth(known["original_boxes"][row, here], classes[here], ignored)


def detected(context: dict[str, Tensor], batch: Batch) -> Iterator[Detected]:
    """What a detector finds in each image of a batch, given the ``context`` of its outputs."""
    found = {name: context[name].cpu().numpy() for name in ("boxes", "classes", "scores")}
    boxes = in_stored_pixels(found["boxes"], batch["windows"].cpu().numpy(), batch.sizes.cpu().numpy())
    for row, classes in enumerate(found["classes"]):
        there = classes >= 0
        yield Detected(boxes[row, there], classes[there], found["scores"][row, there])


def _config_of(run: Path) -> tuple[dict[str, Any], DataConfig]:
    """The config of a run that has a checkpoint, and what it says of its data."""
    path = run / "config.json"
    if not path.exists() or not (run / "best.pt").exists():
        raise UsageError(f"{run} is not a run folder with a best.pt: train it for an epoch first")
    config = log.read_config(run)
    try:
        return config, restore(DataConfig, config["data"])[0]
    except (ValueError, TypeError, KeyError, AttributeError, DataError) as error:
        raise DataError(f"{path} is damaged, or of another version ({error})") from None


def _check_read(images: int) -> None:
    """Raises DataError where none of the images of a run could be read."""
    if not images:
        raise DataError("not one image could be read: check the split with dataset/inspect_lmdb.py")


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@torch.no_grad()
def _outputs(name: str, network: Live, loader: EvalLoader) -> NetworkOutputs:
    rows: dict[str, list[Tensor]] = {"pooled": [], "logits": [], "labels": []}
    for batch in progress(iterable=loader, desc=name, total=len(loader), unit="batch"):
        outputs = network.predict(batch["images"])
        for key, value in {**outputs.features, "logits": outputs.logits, "labels": batch["labels"]}.items():
            rows[key].append(value.cpu().clone())
    _check_read(sum(map(len, rows["labels"])))
    pooled, logits, labels = (torch.cat(rows[key]).numpy() for key in ("pooled", "logits", "labels"))
    return NetworkOutputs(name, pooled, logits.reshape(len(labels), -1), labels, loader.samples.classes)
