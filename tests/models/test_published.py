"""Published weights give what their library gives, and a classifier for other classes only to learners."""

import re

import pytest
import timm
import torch
import torchvision
from torch import nn
from torchvision.models._api import WeightsEnum

from models.published import File, torchvision_network
from models.zoo import NetworkConfig, build_network
from utils.errors import DataError, UsageError

TORCHVISION = {  # one of each family, and the size of its images
    "alexnet": 64,
    "convnext_tiny": 64,
    "densenet121": 64,
    "efficientnet_b0": 64,
    "efficientnet_v2_s": 64,
    "googlenet": 64,
    "inception_v3": 96,
    "maxvit_t": 224,
    "mnasnet0_5": 64,
    "mobilenet_v2": 64,
    "mobilenet_v3_small": 64,
    "regnet_y_400mf": 64,
    "resnet18": 64,
    "resnext50_32x4d": 64,
    "shufflenet_v2_x0_5": 64,
    "squeezenet1_1": 64,
    "swin_t": 64,
    "swin_v2_t": 64,
    "vgg11_bn": 64,
    "vit_b_32": 224,
}
TIMM = {
    "convnext_atto": 64,
    "deit_tiny_distilled_patch16_224": 224,
    "densenet121": 64,
    "ghostnet_100": 64,
    "inception_v3": 96,
    "lcnet_050": 64,
    "mobilenetv1_100": 64,
    "mobilenetv3_small_050": 64,
    "regnetx_002": 64,
    "repvgg_a0": 64,
    "resnet10t": 64,
    "resnetv2_50x1_bit": 64,
    "vit_tiny_patch16_224": 224,
}
ALL = [*TORCHVISION.items(), *((f"timm/{name}", side) for name, side in TIMM.items())]


def pixels(side):
    """uint8 [2, 3, side, side], coloured unevenly, so that the channels cannot be taken for each other."""
    coarse = torch.randint(0, 256, (2, 3, 8, 8), generator=torch.Generator().manual_seed(side)).float()
    images = nn.functional.interpolate(coarse, (side, side), mode="bilinear")
    return (images * torch.tensor([0.9, 0.6, 0.3]).view(3, 1, 1)).to(torch.uint8)


def normalised(images, mean, std):
    return (images / 255 - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)


@torch.no_grad()
def settled(network, images):
    """``network`` with the statistics of ``images`` in its batch norms, and no layer of zeros."""
    network.eval()
    for parameter in network.parameters():
        if not parameter.any():
            parameter.normal_(0, 0.02)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
            module.train()
    network(images)
    return network.eval()


def published(name, side, monkeypatch):
    """Weights in the place of the download of ``name``; returns the library's own network with them, mean and std."""
    if name.startswith("timm/"):
        name = name.removeprefix("timm/")
        cfg = timm.get_pretrained_cfg(name)
        source = settled(timm.create_model(name, num_classes=1000), normalised(pixels(side), cfg.mean, cfg.std))
        for place in ("load_state_dict_from_hf", "load_state_dict_from_url"):
            monkeypatch.setattr(f"timm.models._builder.{place}", lambda *_a, **_o: dict(source.state_dict()))
        skip_initialisation(monkeypatch)
        return timm.create_model(name, pretrained=True).eval(), cfg.mean, cfg.std
    weights = torchvision.models.get_model_weights(name).DEFAULT
    options = {"init_weights": True, "aux_logits": True} if name in ("googlenet", "inception_v3") else {}
    mean, std = weights.transforms().mean, weights.transforms().std
    source = settled(torchvision.models.get_model(name, weights=None, **options), normalised(pixels(side), mean, std))
    state = source.state_dict()
    if name == "densenet121":  # the names of the published file
        old = {re.sub(r"(denselayer\d+\.(?:norm|conv))(\d)", r"\1.\2", key): value for key, value in state.items()}
        state = {key: value for key, value in old.items() if not key.endswith("num_batches_tracked")}
    monkeypatch.setattr(WeightsEnum, "get_state_dict", lambda *_a, **_o: state)
    skip_initialisation(monkeypatch)
    return torchvision.models.get_model(name, weights=weights).eval(), mean, std


def skip_initialisation(monkeypatch):
    """What is not loaded stays whatever the memory held."""
    for name in ("kaiming_uniform_", "kaiming_normal_", "xavier_uniform_", "trunc_normal_", "normal_", "uniform_"):
        monkeypatch.setattr(f"torch.nn.init.{name}", lambda tensor, *_a, **_o: tensor)


def assert_alike(given, expected):
    assert (given - expected).abs().max() < 0.01 * (expected - expected.mean(0)).abs().max()


@pytest.mark.parametrize(("name", "side"), ALL)
def test_published_weights_give_the_librarys_logits_and_a_student_a_new_last_layer(name, side, monkeypatch, capsys):
    theirs, mean, std = published(name, side, monkeypatch)
    images = pixels(side)
    ours = build_network(NetworkConfig(name, "default"), 1000, side=side).eval()
    assert capsys.readouterr().out == ""
    with torch.no_grad():
        expected = theirs(normalised(images, mean, std))
        other = theirs(normalised(images, [0.6 * one for one in mean], std))
        given = ours.predict(images).logits
    assert (given - expected).abs().max() < 0.01 * (other - expected).abs().max()  # what another input would have shown
    assert (ours.published_top1 is None) == name.startswith("timm/")

    with pytest.raises(
        UsageError,
        match=rf"{name}.* has 1000 outputs, 7 are asked for: .*num_classes=1000, where .*--class_list imagenet",
    ):
        build_network(NetworkConfig(name, "default"), 7, side=side)
    learner = build_network(NetworkConfig(name, "default"), 7, side=side, new_classifier=True)
    assert capsys.readouterr().out.count("its classifier is new") == 1
    with torch.no_grad():
        assert learner.train().predict(images).logits.shape == (2, 7)  # of GoogLeNet and Inception too: logits alone
    kept = {key: value for key, value in theirs.state_dict().items() if not key.startswith("AuxLogits")}
    new = learner.network.state_dict()
    assert kept.keys() == new.keys()
    changed = {key for key in kept if kept[key].shape != new[key].shape}
    assert 1 <= len(changed) <= 4  # weight and bias, of two layers in a distilled transformer
    assert all(new[key].shape[0] == 7 for key in changed)
    assert learner.published_top1 is None


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_scaling_of_the_input_goes_with_the_weights(name, tmp_path, monkeypatch, capsys):
    """It is published with the weights, and no tensor of a file tells of it."""
    side = TORCHVISION[name]
    theirs, mean, std = published(name, side, monkeypatch)
    images = pixels(side)
    with torch.no_grad():
        expected = theirs(normalised(images, mean, std))
    run = build_network(NetworkConfig(name, "default"), 1000, side=side).network.state_dict()
    torch.save({"student": run}, tmp_path / "best.pt")
    torch.save(WeightsEnum.get_state_dict(None), tmp_path / "theirs.pth")
    capsys.readouterr()
    with torch.no_grad():
        own = build_network(NetworkConfig(name, str(tmp_path / "best.pt")), 1000, side=side).eval()
        assert_alike(own.predict(images).logits, expected)
        assert capsys.readouterr().out == ""
        half = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
        built = build_network(NetworkConfig(name, str(tmp_path / "theirs.pth"), **half), 1000, side=side).eval()
        assert_alike(built.predict(images).logits, expected)
        assert "theirs.pth does not say whether" in capsys.readouterr().out
        beginning = torchvision.models.get_model_weights(name).DEFAULT.url[-12:-4]
        monkeypatch.setattr("models.published.sha256", lambda _path: beginning + 56 * "0")
        known = build_network(NetworkConfig(name, str(tmp_path / "theirs.pth")), 1000, side=side).eval()
        assert_alike(known.predict(images).logits, expected)
        assert capsys.readouterr().out == ""


def test_published_weights_of_another_size_bring_it(monkeypatch):
    skip_initialisation(monkeypatch)
    state = torchvision.models.vit_b_16(image_size=384).state_dict()
    monkeypatch.setattr(WeightsEnum, "get_state_dict", lambda *_a, **_o: state)
    config = NetworkConfig("vit_b_16", "IMAGENET1K_SWAG_E2E_V1")
    assert build_network(config, 1000, side=384).network.image_size == 384
    with pytest.raises(UsageError, match=r"data\.input_size=224: vit_b_16 does not take .* it takes 384"):
        build_network(config, 1000, side=224)


@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_file_of_another_size_brings_it(prefix, tmp_path):
    shapes = {"encoder.pos_embedding": (1, 1 + 6 * 6, 768), "conv_proj.weight": (768, 3, 16, 16)}
    file = File(tmp_path / "w.safetensors", {f"{prefix}{name}": torch.zeros(shape) for name, shape in shapes.items()})
    with torch.device("meta"):
        assert torchvision_network("vit_b_16", file, 10, new_classifier=False).network.image_size == 6 * 16


def test_a_damaged_download_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "resnet18-f37072fd.pth").write_bytes(b"half of it")
    with pytest.raises(DataError, match=r"resnet18-f37072fd\.pth is damaged: its SHA-256 does not begin with f37072fd"):
        build_network(NetworkConfig("resnet18", "default"), 1000)


@pytest.mark.parametrize(
    ("name", "side", "message"),
    [
        ("timm/mixer_s32_224", 96, "it is made for 224"),
        ("vit_b_16", 128, "it takes 224"),
        ("inception_v3", 64, "it takes 75 and more"),
        ("vgg11_bn", 16, "it takes 32 and more"),
        ("alexnet", 32, "it takes 63 and more"),
        ("densenet121", 16, "it takes 29 and more"),
    ],
)
@pytest.mark.parametrize("reads", [(), ("last",)])
def test_images_of_another_size_are_refused_with_the_librarys_message(name, side, message, reads, monkeypatch):
    skip_initialisation(monkeypatch)
    with pytest.raises(UsageError, match=rf"data\.input_size={side}: {name} does not take .*{message} \(") as error:
        build_network(NetworkConfig(name), 10, reads, side)
    assert "\n" not in str(error.value)
