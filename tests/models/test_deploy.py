"""What is exported gives what the trained network gives, in fewer layers; names of classes go with it."""

import copy

import pytest
import torch
from torch import nn

from models.heads import HeadConfig
from models.weights import read_weights
from models.zoo import NetworkConfig, build_network
from training import checkpoint
from utils.errors import UsageError

IMAGES = torch.randint(0, 256, (4, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
HEADS = {
    "own": {},
    "embedding": {"dimensions": 9},
    "pooling": {"kind": "max", "dimensions": 5},
    "label_embeddings": {"dimensions": 8, "heads": 2, "width": 16},
}


@torch.no_grad()
def trained(network):
    """``network`` with statistics and weights in its batch norms as training leaves them: none is 0 or 1."""
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2)
            module.weight.uniform_(0.5, 1.5)
            module.bias.normal_(0, 0.2)
    return network.eval()


def assert_alike(given, expected):
    assert (given - expected).abs().max() < 1e-4 * expected.abs().max()


@pytest.mark.parametrize("head", HEADS)
def test_repvgg_is_exported_without_its_branches_and_read_back(head, tmp_path):
    torch.manual_seed(0)
    config = {"name": "timm/repvgg_a0", "head": HeadConfig(head, HEADS[head])}
    network = trained(build_network(NetworkConfig(**config), 5, ["pooled"], 64))
    state = network.network.state_dict()
    before = copy.deepcopy(state)
    exported = network.exported(state)
    assert not [name for name in exported if "conv_kxk" in name or "identity" in name or "embedding." in name]
    assert len([name for name in exported if name.endswith("reparam_conv.weight")]) == 22
    assert all(torch.equal(value, state[name]) for name, value in before.items())
    path = tmp_path / "student.safetensors"
    checkpoint.export(path, exported)
    expected = network.predict(IMAGES).logits
    again = build_network(NetworkConfig(**config, weights=str(path)), 5, ["stage3", "pooled"], 64).eval()
    outputs = again.predict(IMAGES)
    assert_alike(outputs.logits, expected)
    assert outputs.features["stage3"].shape[2:] == (4, 4)
    torch.save(state, tmp_path / "w.pth")  # in the form of training, as a checkpoint has it
    plain = build_network(NetworkConfig(**config, weights=str(tmp_path / "w.pth")), 5, side=64).eval()
    assert torch.equal(plain.predict(IMAGES).logits, expected)


def test_a_student_in_the_form_for_evaluation_is_trained_further(tmp_path):
    torch.manual_seed(0)
    network = trained(build_network(NetworkConfig("timm/repvgg_a0"), 5, side=64))
    torch.save(
        {"model": {f"module.{k}": v for k, v in network.exported(network.network.state_dict()).items()}},
        tmp_path / "w.pth",
    )
    config = NetworkConfig("timm/repvgg_a0", str(tmp_path / "w.pth"))
    student = build_network(config, 3, side=64, new_classifier=True)
    student.train().predict(IMAGES).logits.square().sum().backward()
    assert all(parameter.requires_grad and parameter.grad is not None for parameter in student.parameters())
    exported = student.exported(student.network.state_dict())
    assert exported.keys() == student.network.state_dict().keys()
    with pytest.raises(UsageError, match=r"w\.pth has 5 outputs, 3 are asked for"):
        build_network(config, 3, side=64)


def test_norms_of_all_ranks_keep_their_activations_and_are_exported():
    torch.manual_seed(0)
    for name, head in (("timm/repvgg_a0", "own"), ("timm/mobilenetv3_small_050", "pooling")):
        config = NetworkConfig(name, head=HeadConfig(head, HEADS[head]))
        synced = trained(build_network(config, 5, ["pooled"], 64, sync_bn=True))
        plain = build_network(config, 5, ["pooled"], 64).eval()
        plain.load_state_dict(synced.state_dict())
        assert any(isinstance(module, nn.SyncBatchNorm) for module in synced.modules())
        torch.testing.assert_close(synced.predict(IMAGES).logits, plain.predict(IMAGES).logits)
        ours, theirs = (one.exported(one.network.state_dict()) for one in (synced, plain))
        assert all(torch.equal(value, ours[key]) for key, value in theirs.items())


NAMES = ("chat", "猫", "e\u0301", "caf\udce9", "two\nlines", "", "chat")


@pytest.mark.parametrize("name", ["cifar_resnet8", "timm/repvgg_a0"])
@pytest.mark.parametrize("head", ["embedding", "label_embeddings"])
def test_names_of_the_classes_go_with_the_weights(name, head, tmp_path):
    config = {"name": name, "head": HeadConfig(head, HEADS[head])}
    network = build_network(NetworkConfig(**config), 7, side=64)
    average = copy.deepcopy(network)
    assert network.classes == ()
    network.classes = NAMES
    torch.save({"student": network.network.state_dict()}, tmp_path / "best.pt")
    checkpoint.export(tmp_path / "student.safetensors", network.exported(average.network.state_dict()))
    for file in ("best.pt", "student.safetensors"):
        weights = str(tmp_path / file)
        assert build_network(NetworkConfig(**config, weights=weights), 7, side=64).classes == NAMES
        assert build_network(NetworkConfig(**config, weights=weights), 3, side=64, new_classifier=True).classes == ()


@pytest.mark.parametrize("noted", ["abcdefg", None, 7, ["a"] * 6, [1] * 7, {"a": 1}, [["a"]] * 7])
def test_malformed_notes_are_none(noted, tmp_path):
    network = build_network(NetworkConfig("cifar_resnet8", mean=(0, 0, 0)), 7, side=32)
    state = network.exported(network.network.state_dict())
    state._metadata[""].update(classes=noted, normalization=noted)
    checkpoint.export(tmp_path / "w.safetensors", state)
    again = build_network(NetworkConfig("cifar_resnet8", str(tmp_path / "w.safetensors")), 7, side=32)
    assert again.classes == ()
    assert again.normalization.mean == (0.485, 0.456, 0.406)
    assert read_weights(tmp_path / "w.safetensors").keys() == state.keys()
