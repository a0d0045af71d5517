"""Heads: what stands behind a backbone, how its weights are read and exported, and one of one's own."""

from dataclasses import dataclass

import pytest
import safetensors.torch
import torch
from torch import nn

from models.heads import Backbone, Head, HeadConfig, head
from models.outputs import Behind, Outputs
from models.zoo import NetworkConfig, build_network
from utils.errors import UsageError
from utils.settings import Range

IMAGES = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def embedded(dimensions):
    return HeadConfig("embedding", {"dimensions": dimensions})


@pytest.mark.parametrize("name", ["cifar_resnet8", "cifar_vgg8", "resnet18", "cifar_mobilenetv2"])
def test_an_embedding_is_what_the_classifier_is_given_and_merges_into_it(name, tmp_path):
    torch.manual_seed(0)
    config = NetworkConfig(name, head=embedded(12))
    network = build_network(config, 10, ["pooled"], 32).eval()
    with torch.no_grad():
        outputs = network(network.normalize(IMAGES))
        assert outputs.features["pooled"].shape == (2, 12)
        context = outputs.context
        from_pooled = outputs.features["pooled"] @ context["head_weight"].T + context["head_bias"]
    torch.testing.assert_close(from_pooled, outputs.logits)
    state = network.network.state_dict()
    torch.save(state, tmp_path / "embedded.pth")
    again = build_network(NetworkConfig(name, str(tmp_path / "embedded.pth"), head=embedded(12)), 10).eval()
    assert torch.equal(again.predict(IMAGES).logits, network.predict(IMAGES).logits)
    safetensors.torch.save_file(network.exported(state), tmp_path / "merged.safetensors")
    for kind in (HeadConfig(), embedded(12)):  # the second as the config of the run says it
        plain = build_network(NetworkConfig(name, str(tmp_path / "merged.safetensors"), head=kind), 10).eval()
        torch.testing.assert_close(plain.predict(IMAGES).logits, outputs.logits)
    # To be trained on, it has an embedding again.
    config = NetworkConfig(name, str(tmp_path / "merged.safetensors"), head=embedded(7))
    assert build_network(config, 10, side=32, new_classifier=True).classifier.in_features == 7


@pytest.mark.parametrize("name", ["cifar_resnet8", "cifar_wrn_16_1", "cifar_shufflenetv2", "vgg11_bn", "resnet18"])
def test_pooled_is_what_the_classifier_is_given(name):
    network = build_network(NetworkConfig(name), 10, ["pooled"], 32).eval()
    with torch.no_grad():
        outputs = network(network.normalize(IMAGES))
        assert torch.equal(network.classifier(outputs.features["pooled"]), outputs.logits)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (HeadConfig("embeding"), r"^head\.name=embeding: there is embedding"),
        (HeadConfig("embedding"), r"^head\.options: embedding needs dimensions$"),
        (embedded(0), r"^head\.options\.dimensions=0: at least 1 and at most 65536$"),
        (embedded(1.5), r"^head\.options\.dimensions=1\.5: a whole number$"),
        (embedded("many"), r"^head\.options\.dimensions=many: no number$"),
        (HeadConfig("own", {"dimensions": 3}), r"^head\.options: own has no option dimensions; it has none$"),
        (HeadConfig("reused", {"teacher": 1.0}), r"^head\.options\.teacher=1\.0: no value like its default"),
    ],
)
def test_what_is_no_head_is_refused_by_name(config, message):
    with pytest.raises(UsageError, match=message):
        build_network(NetworkConfig("cifar_resnet8", head=config), 10, side=32)
    with pytest.raises(UsageError, match="SqueezeNet has no linear classifier to put an embedding before"):
        build_network(NetworkConfig("squeezenet1_1", head=embedded(3)), 10, side=64)


@head("by_label", width=Range(1))
@dataclass(frozen=True, kw_only=True)
class ByLabel(Head):
    """An embedding for each class, of which a share is only there in training."""

    width: int = 5

    def attach(self, backbone: Backbone) -> nn.Module:
        return Labelled(backbone, self.width)

    def is_in(self, state):
        return "query" in state

    def exported(self, state):
        return {name: value for name, value in state.items() if name != "only_in_training"}


class Labelled(Behind):
    def __init__(self, backbone, width):
        super().__init__(backbone.giving("last"), "last", backbone.side, gives=("label_embeddings",))
        self.query = nn.Parameter(torch.randn(backbone.num_classes, width))
        self.project = nn.Linear(self.channels, width)
        self.register_buffer("only_in_training", torch.ones(()))

    def behind(self, features):
        pixels = self.project(features["last"].flatten(2).transpose(1, 2))  # [B, H W, D]
        attention = (pixels @ self.query.T).softmax(1)  # [B, H W, K]
        labels = attention.transpose(1, 2) @ pixels  # [B, K, D]
        return Outputs((labels * self.query).sum(2), {"label_embeddings": labels})

    def _load_from_state_dict(self, state, prefix, *args):
        state.setdefault(f"{prefix}only_in_training", self.only_in_training)
        super()._load_from_state_dict(state, prefix, *args)


@pytest.mark.parametrize("name", ["cifar_resnet8", "resnet18"])
def test_a_head_of_ones_own_trains_exports_and_is_read_back(name, tmp_path):
    torch.manual_seed(0)
    config = NetworkConfig(name, head=HeadConfig("by_label", {"width": 7.0}))
    network = build_network(config, 10, ["stage2", "label_embeddings"], 32, new_classifier=True)
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer, labels = torch.optim.SGD(trained, 0.01), torch.tensor([3, 8])
    losses = []
    for _ in range(8):
        outputs = network(network.normalize(IMAGES))
        losses.append(nn.functional.cross_entropy(outputs.logits, labels))
        optimizer.zero_grad()
        losses[-1].backward()
        optimizer.step()
    assert losses[-1] < losses[0] / 2
    assert all(parameter.grad is not None for parameter in trained)  # its own classifier is frozen
    assert outputs.features["label_embeddings"].shape == (2, 10, 7)
    assert outputs.features["stage2"].ndim == 4
    assert network.classifier is None
    assert "head_weight" not in outputs.context
    state = network.exported(network.network.state_dict())
    assert "only_in_training" not in state
    torch.save(state, tmp_path / "weights.pth")
    again = build_network(NetworkConfig(name, str(tmp_path / "weights.pth"), head=config.head), 10, side=32)
    assert torch.equal(again.eval().predict(IMAGES).logits, network.eval().predict(IMAGES).logits)
    with pytest.raises(UsageError, match=r"gives no pooled; .*label_embeddings, and nothing else"):
        build_network(config, 10, ["pooled"], 32)
