"""Checkpoints of the zoos of distillation on CIFAR load by the names that these give their weights."""

import gzip
import json
import os
from pathlib import Path

import pytest
import torch

from models.zoo import NetworkConfig, build_network

DATA = Path(os.environ.get("LIMBECK_DATA", "../shared/data")).resolve()
MDISTILLERS = DATA.parent / "reference" / "mdistiller_state_dicts.json.gz"
SMALL = ("resnet20", "resnet8x4", "wrn_16_2", "vgg8_bn", "MobileNetV2", "ShuffleV1", "ShuffleV2")


def loads(name, shapes, tmp_path, **beside):
    """Whether a checkpoint with a state dict of these shapes under `model` gives the network its all."""
    generator = torch.Generator().manual_seed(0)
    state = {
        key: torch.tensor(7) if key.endswith("num_batches_tracked") else torch.rand(*shape, generator=generator) + 0.5
        for key, shape in shapes.items()
    }
    torch.save({"model": state, **beside}, tmp_path / "net.pth")
    network = build_network(NetworkConfig(name, str(tmp_path / "net.pth")), 100, side=32).network
    loaded = network.state_dict()
    return loaded.keys() == state.keys() and all(torch.equal(value, state[key]) for key, value in loaded.items())


def conv(name, channels_in, channels, size=3, groups=1, bias=False):
    shapes = {f"{name}.weight": (channels, channels_in // groups, size, size)}
    return {**shapes, f"{name}.bias": (channels,)} if bias else shapes


def norm(name, channels):
    vectors = {f"{name}.{part}": (channels,) for part in ("weight", "bias", "running_mean", "running_var")}
    return {**vectors, f"{name}.num_batches_tracked": ()}


def linear(name, channels_in):
    return {f"{name}.weight": (100, channels_in), f"{name}.bias": (100,)}


def resnet8x4():
    shapes = {**conv("conv1", 3, 32), **norm("bn1", 32), **linear("fc", 256)}
    for number, (before, channels) in enumerate(((32, 64), (64, 128), (128, 256)), start=1):
        block = f"layer{number}.0"
        shapes |= {**conv(f"{block}.conv1", before, channels), **norm(f"{block}.bn1", channels)}
        shapes |= {**conv(f"{block}.conv2", channels, channels), **norm(f"{block}.bn2", channels)}
        shapes |= {**conv(f"{block}.downsample.0", before, channels, 1), **norm(f"{block}.downsample.1", channels)}
    return shapes


def wrn_16_2():
    shapes = {**conv("conv1", 3, 16), **norm("bn1", 128), **linear("fc", 128)}
    for number, (before, channels) in enumerate(((16, 32), (32, 64), (64, 128)), start=1):
        shapes |= conv(f"block{number}.layer.0.convShortcut", before, channels, 1)
        for layer, first in enumerate((before, channels)):
            block = f"block{number}.layer.{layer}"
            shapes |= {**norm(f"{block}.bn1", first), **conv(f"{block}.conv1", first, channels)}
            shapes |= {**norm(f"{block}.bn2", channels), **conv(f"{block}.conv2", channels, channels)}
    return shapes


def vgg8():
    shapes = linear("classifier", 512)
    for number, (before, channels) in enumerate(((3, 64), (64, 128), (128, 256), (256, 512), (512, 512))):
        shapes |= {**conv(f"block{number}.0", before, channels, bias=True), **norm(f"block{number}.1", channels)}
    return shapes


def mobile_half():
    """Half as wide as MobileNetV2; no block is expanded in the first stage."""
    shapes = {**conv("conv1.0", 3, 16), **norm("conv1.1", 16), **linear("classifier.0", 1280)}
    shapes |= {**conv("conv2.0", 160, 1280, 1), **norm("conv2.1", 1280)}
    before = 16
    stages = ((1, 8, 1), (6, 12, 2), (6, 16, 3), (6, 32, 4), (6, 48, 3), (6, 80, 3), (6, 160, 1))
    for number, (expand, channels, blocks) in enumerate(stages):
        for block in range(blocks):
            name, wide = f"blocks.{number}.{block}.conv", before * expand
            shapes |= {**conv(f"{name}.0", before, wide, 1), **norm(f"{name}.1", wide)}
            shapes |= {**conv(f"{name}.3", wide, wide, 3, wide), **norm(f"{name}.4", wide)}
            shapes |= {**conv(f"{name}.6", wide, channels, 1), **norm(f"{name}.7", channels)}
            before = channels
    return shapes


def shuffle_v1():
    """A quarter as wide between; a block that halves the map gives what its input lacks of the channels."""
    shapes = {**conv("conv1", 3, 24, 1), **norm("bn1", 24), **linear("linear", 960)}
    before = 24
    for number, (channels, blocks) in enumerate(((240, 4), (480, 8), (960, 4)), start=1):
        for block in range(blocks):
            name, gives = f"layer{number}.{block}", channels if block else channels - before
            between, groups = gives // 4, 1 if before == 24 else 3
            shapes |= {**conv(f"{name}.conv1", before, between, 1, groups), **norm(f"{name}.bn1", between)}
            shapes |= {**conv(f"{name}.conv2", between, between, 3, between), **norm(f"{name}.bn2", between)}
            shapes |= {**conv(f"{name}.conv3", between, gives, 1, 3), **norm(f"{name}.bn3", gives)}
            before = channels
    return shapes


def resnet50():
    shapes = {**conv("conv1", 3, 64), **norm("bn1", 64), **linear("linear", 2048)}
    before = 64
    for number, (width, blocks) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3)), start=1):
        for block in range(blocks):
            name = f"layer{number}.{block}"
            if not block:
                shapes |= {**conv(f"{name}.shortcut.0", before, 4 * width, 1), **norm(f"{name}.shortcut.1", 4 * width)}
            shapes |= {**conv(f"{name}.conv1", before, width, 1), **norm(f"{name}.bn1", width)}
            shapes |= {**conv(f"{name}.conv2", width, width), **norm(f"{name}.bn2", width)}
            shapes |= {**conv(f"{name}.conv3", width, 4 * width, 1), **norm(f"{name}.bn3", 4 * width)}
            before = 4 * width
    return shapes


@pytest.mark.parametrize(
    ("name", "shapes"),
    [
        ("cifar_resnet8x4", resnet8x4()),
        ("cifar_wrn_16_2", wrn_16_2()),
        ("cifar_vgg8", vgg8()),
        ("cifar_mobilenetv2", mobile_half()),
        ("cifar_shufflenetv1", shuffle_v1()),
        ("cifar_resnet50", resnet50()),
    ],
)
def test_repdistillers_checkpoints_load(name, shapes, tmp_path):
    """Names and shapes are those of RepDistiller's networks (commit eedab9d), the keys those that it saves."""
    assert loads(name, shapes, tmp_path, epoch=240, best_acc=torch.tensor(75.5), opt={"lr": 0.05})


@pytest.mark.parametrize("name", SMALL)
def test_mdistillers_checkpoints_load(name, tmp_path):
    if not MDISTILLERS.exists():
        pytest.skip("needs the shared table of names")
    shapes = json.loads(gzip.decompress(MDISTILLERS.read_bytes()))
    assert loads(_ours(name), shapes[name], tmp_path, epoch=240, best_acc=75.5)


def _ours(name):
    return f"cifar_{name.lower().removesuffix('_bn').replace('shufflev', 'shufflenetv')}"
