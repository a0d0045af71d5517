"""What a run has read: its data and its teachers' weights, by content and not by path, to be compared on resume."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

from dataset.store.samples import Samples
from models.own import changed_sources, is_own
from models.zoo import NetworkConfig
from teachers import Live
from training.stored import Stored
from utils.imports import sources_of

_SHOWN = 3  # names in a message


def facts_of(
    splits: Mapping[str, Samples], teachers: nn.ModuleDict, networks: Mapping[str, NetworkConfig]
) -> dict[str, Any]:
    """Classes, number of images and a digest of each split; a digest of each teacher's weights, or of what its store
    depends on; and of the ``networks`` that are the user's own, by the key of their settings, those of their files;
    JSON."""
    return {
        "data": {name: _split(samples) for name, samples in splits.items()},
        "teachers": {name: _weights(one) for name, one in teachers.items() if isinstance(one, Live)},
        "stores": {name: one.store.digest for name, one in teachers.items() if isinstance(one, Stored)},
        "code": {key: sources_of(one.name, one.folder) for key, one in networks.items() if is_own(one.name)},
    }


def check_facts(read: Mapping[str, Any]) -> None:
    """Raises TypeError, KeyError or AttributeError where what was read is not as `facts_of` makes it."""
    for name, split in read["data"].items():
        images, digest, classes = split["images"], split["sha256"], split["classes"]
        if type(images) is not int or type(classes) is not list or {*map(type, (digest, *classes))} != {str}:
            raise TypeError(f"of {name} it must have a number of images, a digest and names of classes")
    for kind in ("teachers", "stores", "code"):
        read.get(kind, {}).items()


def changes(then: dict[str, Any], now: dict[str, Any]) -> str:
    """What differs between two `facts_of`, as a text; empty where nothing does."""
    found = []
    for name, split in now["data"].items():
        if (before := then.get("data", {}).get(name)) is not None and before != split:
            found.append(f"the {name} split {_difference(before, split)}")
    for name, digest in now["teachers"].items():
        if (known := then.get("teachers", {}).get(name)) is not None and known != digest:
            found.append(f"teachers.{name} had other weights (SHA-256 {known[:8]} then, {digest[:8]} now)")
    for name, digest in now.get("stores", {}).items():
        if then.get("stores", {}).get(name, digest) != digest:
            found.append(f"teachers.{name}.store was of other outputs")
    return "; ".join(found)


def changed_code(then: dict[str, Any], now: dict[str, Any]) -> Iterator[str]:
    """Remarks on files of the user's own networks that are others than those at the start of a run."""
    for key, files in now.get("code", {}).items():
        for change in changed_sources(files, then.get("code", {}).get(key, {})):
            yield f"{key}.name: {change} since the run began; it goes on with the network as it is now"


def _difference(then: dict[str, Any], now: dict[str, Any]) -> str:
    if then["classes"] != now["classes"]:
        old, new = then["classes"], now["classes"]
        moved = [f"label {n} was {a}, is {b}" for n, (a, b) in enumerate(zip(old, new)) if a != b]
        more = [f"{name} is new" for name in new if name not in set(old)]
        less = [f"{name} is gone" for name in old if name not in set(new)]
        return f"had {len(old)} classes then, {len(new)} now ({', '.join((more + less + moved)[:_SHOWN])})"
    if then["images"] != now["images"]:
        return f"had {then['images']} images then, {now['images']} now"
    return f"had other images or labels (SHA-256 {then['sha256'][:8]} then, {now['sha256'][:8]} now)"


def _split(samples: Samples) -> dict[str, Any]:
    return {"classes": list(samples.classes), "images": len(samples), "sha256": samples.digest()}


def _weights(teacher: Live) -> str:
    digest = hashlib.sha256()
    for name, value in teacher.network.network.state_dict().items():
        content = value.detach().cpu().contiguous().flatten().view(torch.uint8)
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(content.numpy())
    return digest.hexdigest()
