"""The outputs of a run folder's networks on its data. N images, D dimensions, K classes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from dataset.loader import DataConfig, EvalLoader, open_split
from models.zoo import Network, NetworkConfig, build_network
from old_names import as_today
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
    path = run / "config.json"
    if not path.exists() or not (run / "best.pt").exists():
        raise UsageError(f"{run} is not a run folder with a best.pt: train it for an epoch first")
    try:
        config = as_today(json.loads(path.read_bytes()))
        data, _ = restore(DataConfig, config["data"])
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DataError(f"{path} is damaged, or of another version ({error})") from None
    folder, kind = (
        (data.train_split, data.train_data_type) if split == "train" else (data.val_split, data.val_data_type)
    )
    samples = open_split(data, folder, kind)
    if samples.labels.ndim > 1:
        raise UsageError(f"{run}: its images have several labels each, and this picture is of one")
    configs = {"student": {**config["student"], "weights": str((run / "best.pt").resolve())}}
    if teachers:
        configs |= config["teachers"]
    networks = {name: restore(NetworkConfig, values)[0] for name, values in configs.items()}
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
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


@torch.no_grad()
def _outputs(name: str, network: Network, loader: EvalLoader) -> NetworkOutputs:
    rows: dict[str, list[Tensor]] = {"pooled": [], "logits": [], "labels": []}
    for batch in progress(iterable=loader, desc=name, total=len(loader), unit="batch"):
        outputs = network(network.normalize(batch["images"]))
        for key, value in {**outputs.features, "logits": outputs.logits, "labels": batch["labels"]}.items():
            rows[key].append(value.cpu().clone())
    pooled, logits, labels = (torch.cat(rows[key]).numpy() for key in ("pooled", "logits", "labels"))
    return NetworkOutputs(name, pooled, logits, labels, loader.samples.classes)
