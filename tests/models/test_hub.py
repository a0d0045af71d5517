"""Weights and networks on the Hugging Face hub, of a cache that lies there: no test reaches the hub."""

import json
import sys

import pytest
import torch

from models.hub import fetched
from models.weights import file_of, packed
from models.zoo import NetworkConfig, build_network
from stored.facts import weights_of
from utils.errors import UsageError

hub = pytest.importorskip("huggingface_hub")
COMMIT = "a" * 40


@pytest.fixture
def cached(tmp_path, monkeypatch):
    """Puts files into the cache, as they lie there after a download; without a network all else is unknown."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)

    def put(repo, name, content, revision="main"):
        folder = tmp_path / f"models--{repo.replace('/', '--')}"
        (folder / "refs").mkdir(parents=True, exist_ok=True)
        (folder / "refs" / revision).write_text(COMMIT)
        file = folder / "snapshots" / COMMIT / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        return file

    return put


@pytest.fixture
def state():
    network = build_network(NetworkConfig("cifar_resnet8"), 10, side=32).network
    return {name: value.clone() for name, value in network.state_dict().items()}


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("hf://who/nets", "model.safetensors"),
        ("hf://who/nets/deep/er.safetensors", "deep/er.safetensors"),
        ("hf://who/nets/er.safetensors@v1.2", "er.safetensors"),
        ("hf://who/nets@v1.2#body", "model.safetensors"),
    ],
)
def test_weights_in_the_cache_are_found_by_name(cached, state, name, file):
    prefixed = {f"body.{key}": value for key, value in state.items()} if "#" in name else state
    place = cached("who/nets", file, packed(prefixed), "v1.2" if "@" in name else "main")
    assert file_of(name) == (place, "body" if "#" in name else "")
    network = build_network(NetworkConfig("cifar_resnet8", name), 10, side=32).network
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())
    assert weights_of(name, "teacher").startswith("sha256 ")


def test_what_cannot_be_had_is_named_with_what_to_do(cached, monkeypatch):
    cached("who/nets", "README.md", b"")
    for name in ("hf://who/nets", "hf://who/nets/x.pth", "hf://no/body/x.pth@main"):
        with pytest.raises(UsageError, match=r"not in the cache, and the hub cannot be reached.*hf download (who|no)/"):
            fetched(name)
    for name in ("hf://nets", "hf://who/nets/", "hf://"):
        with pytest.raises(UsageError, match="expected hf://user/repo"):
            fetched(name)
    with pytest.raises(UsageError, match=r"hf://who/n:ets/x\.pth: Repo id must"):
        fetched("hf://who/n:ets/x.pth")

    def missing(*_words, **_options):
        raise hub.errors.EntryNotFoundError("404")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", missing)
    with pytest.raises(UsageError, match=r"it has no model\.safetensors or .*name a file, as in hf://who/nets/FILE"):
        fetched("hf://who/nets")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UsageError, match="needs huggingface-hub: pip install huggingface-hub"):
        fetched("hf://who/nets")


def test_a_network_that_timm_finds_on_the_hub(cached, capsys):
    timm = pytest.importorskip("timm")
    made = timm.create_model("test_vit", num_classes=5)
    config = {
        "architecture": "test_vit",
        "num_classes": 5,
        "pretrained_cfg": {
            "num_classes": 5,
            "input_size": [3, 160, 160],
            "mean": [0.1] * 3,
            "std": [0.2] * 3,
            "classifier": "head",
        },
    }
    cached("who/vit", "config.json", json.dumps(config).encode())
    cached("who/vit", "model.safetensors", packed(made.state_dict()))
    network = build_network(NetworkConfig("timm/hf-hub:who/vit", "default"), 5, side=160)
    assert torch.equal(network.network.head.weight, made.head.weight)
    assert network.normalization.mean == pytest.approx((0.1,) * 3)
    with pytest.raises(UsageError, match="timm/hf-hub:who/vit has 5 outputs, 7 are asked for"):
        build_network(NetworkConfig("timm/hf-hub:who/vit", "default"), 7, side=160)
    build_network(NetworkConfig("timm/hf-hub:who/vit", "default"), 7, side=160, new_classifier=True)
    assert "its classifier is new" in capsys.readouterr().out
    with pytest.raises(UsageError, match=r"cannot get timm/hf-hub:no/body .*in the hub's cache \(HF_HOME\)"):
        build_network(NetworkConfig("timm/hf-hub:no/body"), 7)
