"""Networks: names, weights, normalisation, taps."""

import copy
import hashlib
import pickle
import sys
import urllib.error

import pytest
import safetensors.torch
import torch
import torchvision

from models.cifar.resnet import FEATURES
from models.outputs import IMAGENET, Tap, Tapped
from models.zoo import NetworkConfig, build_network, load_weights
from utils.errors import UsageError

IMAGES = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("name", "parameters", "digest"),
    [
        ("cifar_resnet8", 83_892, "c7e36ff449432b48"),
        ("cifar_resnet14", 181_108, "dc881d5570e2148d"),
        ("cifar_resnet20", 278_324, "649926fcf6240e69"),
        ("cifar_resnet32", 472_756, "eee1916dfc5fb1e3"),
        ("cifar_resnet44", 667_188, "f532b91b42661858"),
        ("cifar_resnet56", 861_620, "2fac08358d132b70"),
        ("cifar_resnet110", 1_736_564, "c6e9176cff1a7fee"),
        ("cifar_resnet8x4", 1_233_540, "c7572c24d425e097"),
        ("cifar_resnet32x4", 7_433_860, "632a5be2e9d2198d"),
    ],
)
def test_cifar_resnets_have_the_size_names_and_shapes_of_mdistillers(name, parameters, digest):
    """The digests are those of the state dicts of MDistiller's networks (commit a08d46f) for 100 classes."""
    network = build_network(NetworkConfig(name), 100).classifier
    assert sum(p.numel() for p in network.parameters()) == parameters
    lines = [f"{key} {list(value.shape)}" for key, value in sorted(network.state_dict().items())]
    assert hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16] == digest, "\n".join(lines)


def test_cifar_resnet_features():
    network = build_network(NetworkConfig("cifar_resnet8x4"), 10).eval()
    with torch.no_grad():
        outputs = network(network.normalize(IMAGES[:, :, :32, :32]))
    assert set(outputs.features) == set(FEATURES)
    shapes = {name: tuple(value.shape[1:]) for name, value in outputs.features.items() if "pre" not in name}
    assert shapes == {"stage1": (64, 32, 32), "stage2": (128, 16, 16), "stage3": (256, 8, 8), "pooled": (256,)}
    for stage in ("stage1", "stage2", "stage3"):
        before = outputs.read(f"{stage}_pre")
        assert before.min() < 0
        assert torch.equal(before.relu(), outputs.read(stage))


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_taps_of_torchvision_resnets(name):
    reads = [f"stage{n}{suffix}" for n in (1, 2, 3, 4) for suffix in ("", "_pre")] + ["pooled"]
    tapped = build_network(NetworkConfig(name), 10, reads).eval()
    plain = build_network(NetworkConfig(name), 10).eval()
    plain.load_state_dict(tapped.state_dict())  # the adapter adds no names of its own
    with torch.no_grad():
        outputs = tapped(tapped.normalize(IMAGES))
        assert torch.equal(outputs.logits, plain.score(IMAGES))
    for n in (1, 2, 3, 4):
        before, after = outputs.features[f"stage{n}_pre"], outputs.features[f"stage{n}"]
        assert before.min() < 0  # an in-place ReLU would have rectified it
        assert torch.equal(before.relu(), after)
        assert after.shape[-1] == 64 // 2 ** (n + 1)
    assert outputs.features["pooled"].shape == (2, tapped.classifier.fc.in_features)
    assert not tapped.body._caught
    assert plain(plain.normalize(IMAGES)).features == {}


def test_gradients_reach_the_layers_below_a_tap():
    network = build_network(NetworkConfig("resnet18"), 10, ["stage2_pre", "stage4", "pooled"])
    outputs = network(network.normalize(IMAGES))
    sum(feature.square().sum() for feature in outputs.features.values()).backward()
    reached = {name for name, parameter in network.classifier.named_parameters() if parameter.grad is not None}
    assert reached == {name for name, _ in network.classifier.named_parameters()} - {"fc.weight", "fc.bias"}


def test_a_copy_catches_for_itself():
    original = build_network(NetworkConfig("resnet18"), 10, ["stage4"]).eval()
    twin = copy.deepcopy(original)
    with torch.no_grad():
        assert "stage4" in twin(twin.normalize(IMAGES)).features
    assert not original.body._caught


def test_a_tap_or_feature_that_does_not_exist_is_named():
    with pytest.raises(ValueError, match="no module 'layer9'"):
        Tapped(torchvision.models.resnet18(), {"stage9": Tap("layer9")})
    with pytest.raises(UsageError, match="stage9"):
        build_network(NetworkConfig("resnet18"), 10, ["stage9"])
    with pytest.raises(UsageError, match="cifar_resnet8 gives no stage4; it gives logits, stage1"):
        build_network(NetworkConfig("cifar_resnet8"), 10, ["stage4", "stage3"])
    with pytest.raises(UsageError, match=r"gives no stage1; it gives logits$"):
        build_network(NetworkConfig("timm/mobilenetv1_100"), 10, ["stage1"])


def test_each_network_normalises_for_itself():
    network = build_network(NetworkConfig("resnet18", mean=(0.5, 0.25, 0.0), std=(0.5, 1.0, 0.1)), 10)
    pixel = torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 3, 1, 1)
    expected = torch.tensor([-1.0, (0.2 - 0.25) / 1.0, 1.0 / 0.1]).view(1, 3, 1, 1)
    torch.testing.assert_close(network.normalize(pixel), expected)
    timm = build_network(NetworkConfig("timm/mobilenetv1_100"), 10)
    cfg = timm.classifier.pretrained_cfg
    assert (timm.normalization.mean, timm.normalization.std) == (tuple(cfg["mean"]), tuple(cfg["std"]))


@pytest.mark.parametrize(
    ("name", "message"),
    [("resnet19", r"near: resnet\d+, resnet\d+"), ("timm/mobilenetv1_10", "mobilenetv1_100"), ("", "no network")],
)
def test_unknown_names_bring_near_ones(name, message):
    with pytest.raises(UsageError, match=message):
        build_network(NetworkConfig(name), 10)


def test_unknown_published_weights_are_named():
    with pytest.raises(UsageError, match="IMAGENET1K_V1"):
        build_network(NetworkConfig("resnet18", weights="IMAGENET1K_V7"), 1000)
    with pytest.raises(UsageError, match="no published weights"):
        build_network(NetworkConfig("cifar_resnet8", weights="default"), 10)


@pytest.mark.parametrize("name", ["resnet18", "timm/mobilenetv1_100", "cifar_resnet8"])
@pytest.mark.parametrize("weights", ["weights.bin", "my-weights", "IMAGENET1K_V9"])
def test_weights_that_are_not_found_are_never_random_ones(name, weights):
    with pytest.raises(UsageError, match=r"weights.*a \.pth or \.safetensors file"):
        build_network(NetworkConfig(name, weights=weights), 10)


def test_published_weights_bring_their_normalisation(monkeypatch):
    source = torchvision.models.resnet18()
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", lambda *_a, **_o: source.state_dict())
    network = build_network(NetworkConfig("resnet18", weights="default"), 1000)
    assert network.normalization == IMAGENET
    assert torch.equal(network.classifier.fc.weight, source.fc.weight)
    assert build_network(NetworkConfig("resnet18", "default", mean=(0, 0, 0)), 1000).normalization.mean == (0, 0, 0)
    with pytest.raises(UsageError, match=r"resnet18-f37072fd\.pth does not fit resnet18: .*fc\.weight") as error:
        build_network(NetworkConfig("resnet18", weights="default"), 10)
    assert "\n" not in str(error.value)


def test_timm_says_what_to_fetch_or_to_install(monkeypatch):
    def offline(*_args, **_options):
        raise OSError("no\nnetwork")

    monkeypatch.setattr("timm.create_model", offline)
    with pytest.raises(UsageError, match=r"\(no network\): fetch timm/mobilenetv1_100\.\S+ elsewhere"):
        build_network(NetworkConfig("timm/mobilenetv1_100", weights="default"), 1000)
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UsageError, match="pip install timm"):
        build_network(NetworkConfig("timm/mobilenetv1_100"), 1000)


def test_a_failed_download_says_which_file_to_put_where(tmp_path, monkeypatch):
    def offline(*_args, **_options):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path))
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", offline)
    with pytest.raises(UsageError, match=r"resnet18-f37072fd\.pth") as error:
        build_network(NetworkConfig("resnet18", weights="IMAGENET1K_V1"), 1000)
    assert str(tmp_path / "checkpoints" / "resnet18-f37072fd.pth") in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("form", ["plain", "module", "state_dict", "model", "safetensors", "old"])
def test_weights_load_from_every_form(tmp_path, form):
    source = build_network(NetworkConfig("cifar_resnet8"), 10).classifier
    state = source.state_dict()
    path = tmp_path / ("w.safetensors" if form == "safetensors" else "w.pth")
    if form == "safetensors":
        safetensors.torch.save_file(state, path)
    elif form == "module":
        torch.save({"state_dict": {f"module.{name}": value for name, value in state.items()}, "epoch": 3}, path)
    elif form in ("state_dict", "model"):
        torch.save({form: state}, path)
    else:
        old = {name: value for name, value in state.items() if "num_batches" not in name}
        torch.save(old if form == "old" else state, path)
    loaded = build_network(NetworkConfig("cifar_resnet8", weights=str(path)), 10).classifier
    assert all(torch.equal(value, state[name]) for name, value in loaded.state_dict().items())


def test_a_mismatch_names_the_keys(tmp_path):
    network = build_network(NetworkConfig("cifar_resnet8"), 10).classifier
    state = network.state_dict()
    state["fc.weight"], state["extra"] = torch.zeros(7, 64), state.pop("conv1.weight")
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(UsageError) as error:
        load_weights(network, tmp_path / "w.pth")
    for part in ("missing: conv1.weight", "unexpected: extra", "fc.weight: (7, 64) in the file, (10, 64) in"):
        assert part in str(error.value)


class Evil:
    def __reduce__(self):
        return print, ("code from a weights file ran",)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"garbage",
        pickle.dumps(Evil(), 2),
        pickle.dumps({"a": 1}, 2),
        b"\x80\x02.",
        b"\x80\x02h\x07.",
        b"\x80\x02s",
    ],
)
def test_files_that_are_not_weights_are_refused(tmp_path, content, capfd):
    path = tmp_path / "w.pth"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=r"w\.pth"):
        load_weights(torch.nn.Linear(1, 1), path)
    assert "ran" not in capfd.readouterr().out
    path.rename(tmp_path / "w.safetensors")
    with pytest.raises(UsageError, match=r"w\.safetensors: not a weights file"):
        load_weights(torch.nn.Linear(1, 1), tmp_path / "w.safetensors")
    with pytest.raises(UsageError, match="no such file"):
        load_weights(torch.nn.Linear(1, 1), tmp_path / "none.pth")


@pytest.mark.parametrize("state", [{}, {1: torch.zeros(1)}, {"weight": 3}, [torch.zeros(1)], None])
def test_a_file_without_a_state_dict_that_fits_is_refused(tmp_path, state):
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(UsageError, match=r"holds no state dict|missing: bias, weight"):
        load_weights(torch.nn.Linear(1, 1), tmp_path / "w.pth")
    with pytest.raises(UsageError, match="not a weights file"):
        load_weights(torch.nn.Linear(1, 1), tmp_path)  # a folder


def test_half_a_file_is_refused(tmp_path):
    path, network = tmp_path / "w.pth", torch.nn.Linear(30, 30)
    for legacy in (False, True):
        torch.save(network.state_dict(), path, _use_new_zipfile_serialization=not legacy)
        content = path.read_bytes()
        for length in range(1, len(content) - 16, 97):
            path.write_bytes(content[:length])
            with pytest.raises(UsageError, match="not a weights file"):
                load_weights(network, path)
