"""Networks: names, weights, normalisation, taps."""

import copy
import hashlib
import os
import pickle
import sys
import urllib.error
import zipfile
from pathlib import Path

import pytest
import safetensors.torch
import torch
import torchvision

from dataset.jpeg.decode import decode
from models.cifar import CIFAR
from models.fitting import load_weights
from models.outputs import IMAGENET, Tap, Tapped
from models.zoo import NetworkConfig, build_network
from training.step import _enough_images
from utils.errors import DataError, UsageError

DATA = Path(os.environ.get("LIMBECK_DATA", "../shared/data")).resolve()
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
        ("cifar_mobilenetv2", 812_836, "da613af71c09a1df"),
        ("cifar_shufflenetv1", 949_258, "a6a7e5aaad503399"),
        ("cifar_shufflenetv2", 1_355_528, "453a84f2a0f166f6"),
        ("cifar_wrn_16_1", 180_916, "c86622e01c0182ef"),
        ("cifar_wrn_16_2", 703_284, "e6a57f3ddf2bbfc4"),
        ("cifar_wrn_40_1", 569_780, "d0752782d5324ce6"),
        ("cifar_wrn_40_2", 2_255_156, "cf299ba03b832625"),
        ("cifar_vgg8", 3_965_028, "af0a4ac2401e1baa"),
        ("cifar_vgg11", 9_277_284, "c01653e99717593a"),
        ("cifar_vgg13", 9_462_180, "7ff3cbdb2a68220a"),
        ("cifar_vgg16", 14_774_436, "671ffc473361af0f"),
        ("cifar_vgg19", 20_086_692, "68d64a6eacb282aa"),
        ("cifar_resnet18", 11_220_132, "f6f82589f76989e6"),
        ("cifar_resnet34", 21_328_292, "373af83e7dd653a6"),
        ("cifar_resnet50", 23_705_252, "1383964ae529a18c"),
        ("cifar_resnet101", 42_697_380, "5abc45457773e97c"),
        ("cifar_resnet152", 58_341_028, "e26480f7fca66376"),
    ],
)
def test_cifar_networks_have_the_size_names_and_shapes_of_mdistillers(name, parameters, digest):
    """The digests are those of the state dicts of MDistiller's networks (commit a08d46f) for 100 classes."""
    network = build_network(NetworkConfig(name), 100, side=32).network
    assert sum(p.numel() for p in network.parameters()) == parameters
    lines = [f"{key} {list(value.shape)}" for key, value in sorted(network.state_dict().items())]
    assert hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16] == digest, "\n".join(lines)


def test_cifar_resnet_features():
    network = build_network(NetworkConfig("cifar_resnet8x4"), 10, ["stage*", "stage*_pre", "last", "pooled"]).eval()
    with torch.no_grad():
        outputs = network(network.normalize(IMAGES[:, :, :32, :32]))
    assert set(outputs.features) == {*CIFAR["cifar_resnet8x4"](num_classes=10).features, "pooled"}
    shapes = {name: tuple(value.shape[1:]) for name, value in outputs.features.items() if "pre" not in name}
    deepest = {"stage3": (256, 8, 8), "last": (256, 8, 8), "pooled": (256,)}
    assert shapes == {"stage1": (64, 32, 32), "stage2": (128, 16, 16), **deepest}
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
        assert torch.equal(outputs.logits, plain.predict(IMAGES).logits)
    for n in (1, 2, 3, 4):
        before, after = outputs.features[f"stage{n}_pre"], outputs.features[f"stage{n}"]
        assert before.min() < 0  # an in-place ReLU would have rectified it
        assert torch.equal(before.relu(), after)
        assert after.shape[-1] == 64 // 2 ** (n + 1)
    assert outputs.features["pooled"].shape == (2, tapped.network.fc.in_features)
    assert not tapped.body._caught
    assert plain(plain.normalize(IMAGES)).features == {}


def test_gradients_reach_the_layers_below_a_tap():
    network = build_network(NetworkConfig("resnet18"), 10, ["stage2_pre", "stage4", "pooled"])
    outputs = network(network.normalize(IMAGES))
    sum(feature.square().sum() for feature in outputs.features.values()).backward()
    reached = {name for name, parameter in network.network.named_parameters() if parameter.grad is not None}
    assert reached == {name for name, _ in network.network.named_parameters()} - {"fc.weight", "fc.bias"}


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
    with pytest.raises(UsageError, match=r"squeezenet1_1 gives no stage1; it gives logits\. Name the module"):
        build_network(NetworkConfig("squeezenet1_1"), 10, ["stage1"])
    with pytest.raises(UsageError, match=r"taps.stage1: SqueezeNet has no module 'features.99' that gives a map"):
        build_network(NetworkConfig("squeezenet1_1", taps={"stage1": "features.99"}), 10, ["stage1"])
    named = build_network(NetworkConfig("squeezenet1_1", taps={"stage1": "features.4"}), 10, ["stage1"])
    assert named(named.normalize(IMAGES)).features["stage1"].shape == (2, 128, 15, 15)


def test_each_network_normalises_for_itself():
    network = build_network(NetworkConfig("resnet18", mean=(0.5, 0.25, 0.0), std=(0.5, 1.0, 0.1)), 10)
    pixel = torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 3, 1, 1)
    expected = torch.tensor([-1.0, (0.2 - 0.25) / 1.0, 1.0 / 0.1]).view(1, 3, 1, 1)
    torch.testing.assert_close(network.normalize(pixel), expected)
    timm = build_network(NetworkConfig("timm/mobilenetv1_100"), 10)
    cfg = timm.network.pretrained_cfg
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
    assert torch.equal(network.network.fc.weight, source.fc.weight)
    assert build_network(NetworkConfig("resnet18", "default", mean=(0, 0, 0)), 1000).normalization.mean == (0, 0, 0)
    del source.fc
    with pytest.raises(UsageError, match=r"resnet18-f37072fd\.pth does not fit resnet18: .*fc\.weight") as error:
        build_network(NetworkConfig("resnet18", weights="default"), 1000)
    assert "\n" not in str(error.value)


def test_timm_names_what_to_fetch_or_to_install(monkeypatch):
    def offline(*_args, **_options):
        raise OSError("no\nnetwork")

    monkeypatch.setattr("timm.create_model", offline)
    with pytest.raises(UsageError, match=r"\(no network\): fetch timm/mobilenetv1_100\.\S+ elsewhere"):
        build_network(NetworkConfig("timm/mobilenetv1_100", weights="default"), 1000)
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UsageError, match="pip install timm"):
        build_network(NetworkConfig("timm/mobilenetv1_100"), 1000)


def test_a_failed_download_names_which_file_to_put_where(tmp_path, monkeypatch):
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
    source = build_network(NetworkConfig("cifar_resnet8"), 10).network
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
    loaded = build_network(NetworkConfig("cifar_resnet8", weights=str(path)), 10).network
    assert all(torch.equal(value, state[name]) for name, value in loaded.state_dict().items())


def test_a_mismatch_names_the_keys(tmp_path):
    network = build_network(NetworkConfig("cifar_resnet8"), 10).network
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
    with pytest.raises(UsageError, match="no such file; train the run cifar100_vgg13 first"):
        load_weights(torch.nn.Linear(1, 1), Path("runs/cifar100_vgg13/student.safetensors"))


@pytest.mark.parametrize("state", [{}, {1: torch.zeros(1)}, {"weight": 3}, [torch.zeros(1)], None])
def test_a_file_without_a_state_dict_that_fits_is_refused(tmp_path, state):
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(UsageError, match=r"holds no state dict|missing: bias, weight"):
        load_weights(torch.nn.Linear(1, 1), tmp_path / "w.pth")
    with pytest.raises(UsageError, match=r"is a folder; name a file in it, of a run student\.safetensors"):
        load_weights(torch.nn.Linear(1, 1), tmp_path)  # a folder


def test_half_a_file_is_refused(tmp_path):
    path, network = tmp_path / "w.pth", torch.nn.Linear(30, 30)
    for legacy in (False, True):
        torch.save(network.state_dict(), path, _use_new_zipfile_serialization=not legacy)
        content = path.read_bytes()
        for length in range(1, len(content) - 16, 97):
            path.write_bytes(content[:length])
            with pytest.raises((UsageError, DataError), match=r"not a weights file|is damaged"):
                load_weights(network, path)


STAGES = [f"stage{number}{side}" for number in (1, 2, 3, 4) for side in ("", "_pre")]


@pytest.mark.parametrize(
    "name",
    [
        "resnet18",
        "resnext50_32x4d",
        "wide_resnet50_2",
        "mobilenet_v2",
        "mobilenet_v3_small",
        "shufflenet_v2_x0_5",
        "vgg11_bn",
        "densenet121",
        "efficientnet_b0",
        "regnet_y_400mf",
        "convnext_tiny",
        "vit_b_16",
        "swin_t",
        "timm/resnet18",
        "timm/mobilenetv1_100",
        "timm/mobilenetv3_small_050",
        "timm/convnext_atto",
        "timm/vit_tiny_patch16_224",
        "timm/deit_tiny_distilled_patch16_224",
        "timm/swin_tiny_patch4_window7_224",
    ],
)
def test_stages_of_every_family_are_found(name):
    network = build_network(NetworkConfig(name), 10, [*STAGES, "last", "pooled"]).eval()
    with torch.no_grad():
        features = network(torch.randn(2, 3, 224, 224)).features
        plain = build_network(NetworkConfig(name), 10).eval()
        plain.load_state_dict(network.state_dict())
        probe = torch.randint(0, 256, (1, 3, 224, 224), dtype=torch.uint8)
        assert torch.equal(network.predict(probe).logits, plain.predict(probe).logits)
    transformer = "vit" in name or "deit" in name
    for number, stride in enumerate((16, 16, 16, 16) if transformer else (4, 8, 16, 32), start=1):
        after, before = features[f"stage{number}"], features[f"stage{number}_pre"]
        assert after.shape == before.shape
        assert after.shape[2:] == (224 // stride, 224 // stride)
        assert after.shape[1] > 4  # channels, not pixels
        if not torch.equal(before, after):  # an activation stands between them
            assert before.min() < after.min()
    assert features["last"].shape[2:] == features["stage4"].shape[2:]
    assert features["pooled"].ndim == 2


def test_a_tensor_that_a_relu_overwrites_is_copied_first():
    network = build_network(NetworkConfig("densenet121"), 10, ["stage4", "stage4_pre"]).eval()
    with torch.no_grad():
        features = network(torch.randn(2, 3, 64, 64)).features
    assert features["stage4_pre"].min() < 0
    assert torch.equal(features["stage4_pre"].relu(), features["stage4"])


@pytest.mark.parametrize(("depth", "expected"), [(20, 80.4), (56, 82.5)])
def test_published_cifar10_weights_reach_their_score(depth, expected, tmp_path):
    """The expected top-1 is that on the lossy copies of 1,000 test images, by the notes beside the weights."""
    weights = next((DATA.parent / "weights").glob(f"resnet{depth}-*.th"), None)
    archive = DATA / "cifar10_subset" / "cifar10_subset.zip"
    if weights is None or not archive.exists():
        pytest.skip("needs the shared weights and photos")
    config = NetworkConfig(
        f"cifar_resnet{depth}_a", str(weights), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)
    )
    network = build_network(config, 10).eval()
    with zipfile.ZipFile(archive) as files:
        names = [name for name in files.namelist() if name.startswith("test/") and name.endswith(".jpg")]
        classes = sorted({name.split("/")[-2] for name in names})
        images = torch.stack([torch.from_numpy(decode(files.read(name)).copy()).permute(2, 0, 1) for name in names])
    labels = torch.tensor([classes.index(name.split("/")[-2]) for name in names])
    with torch.no_grad():
        right = torch.cat([network.predict(part).logits.argmax(1) for part in images.split(250)]) == labels
    assert len(names) == 1000
    assert 100 * right.float().mean().item() == pytest.approx(expected, abs=0.11)


def test_batch_norms_of_all_ranks_keep_their_taps():
    network = build_network(NetworkConfig("densenet121"), 10, ["stage4"], 64, sync_bn=True).eval()
    assert any(isinstance(module, torch.nn.SyncBatchNorm) for module in network.modules())
    with torch.no_grad():
        assert network(torch.randn(2, 3, 64, 64)).features["stage4"].shape[2:] == (2, 2)


def test_a_batch_of_one_is_named_where_batch_norms_cannot_take_it():
    network = build_network(NetworkConfig("mobilenet_v3_small"), 10, side=32).train()
    with pytest.raises(UsageError, match=r"data\.batch_size leaves one image a rank and part"), _enough_images():
        network.predict(IMAGES[:1, :, :32, :32])
