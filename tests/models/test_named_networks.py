"""The networks that papers on multi-label distillation name, with every head."""

import pytest
import torch

from models.heads import HeadConfig
from models.zoo import NetworkConfig, build_network

SMALL = {
    "pooling": {},
    "label_embeddings": {"dimensions": 8, "heads": 2, "width": 8},
    "query2label": {"dimensions": 8, "heads": 2, "width": 8},
    "label_tokens": {"dimensions": 8, "heads": 2, "width": 8},
}
CLASSES = 20


@pytest.mark.parametrize(
    ("name", "channels"),
    [
        ("resnet18", 512),
        ("mobilenet_v2", 1280),
        ("swin_t", 768),
        ("timm/repvgg_a0", 1280),
        ("timm/resnext50_32x4d.fb_swsl_ig1b_ft_in1k", 2048),
    ],
)
@pytest.mark.parametrize("head", ["pooling", "label_embeddings"])
def test_every_trained_parameter_gets_a_gradient(name, channels, head):
    torch.manual_seed(0)
    config = NetworkConfig(name, head=HeadConfig(head, SMALL[head]))
    network = build_network(config, CLASSES, ["pooled", "stage2"], 64)
    outputs = network.predict(torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8))
    assert outputs.logits.isfinite().all()
    assert outputs.features["pooled"].shape == (2, channels)
    outputs.logits.square().sum().backward()
    assert [key for key, one in network.named_parameters() if one.requires_grad and one.grad is None] == []


@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("resnet101", "query2label"),
        ("wide_resnet101_2", "label_embeddings"),
        ("vgg19_bn", "pooling"),
        ("swin_b", "label_tokens"),
        ("timm/tresnet_l", "label_embeddings"),
    ],
)
def test_large_ones_go_with_heads_too(name, head):
    """On the meta device, which computes shapes alone."""
    with torch.device("meta"):
        config = NetworkConfig(name, head=HeadConfig(head, SMALL[head]))
        network = build_network(config, CLASSES, ["pooled"], 64)
        outputs = network(torch.zeros(2, 3, 64, 64))
        assert outputs.logits.shape == (2, CLASSES)
        outputs.logits.sum().backward()
        assert [key for key, one in network.named_parameters() if one.requires_grad and one.grad is None] == []


@pytest.mark.parametrize(
    ("name", "side"),
    [
        ("swin_t", 448),
        ("timm/swin_tiny_patch4_window7_224", 448),
        ("timm/swin_tiny_patch4_window7_224", 576),
        ("timm/vit_tiny_patch16_224", 448),
    ],
)
def test_transformers_take_images_of_other_sizes(name, side):
    with torch.device("meta"):
        config = NetworkConfig(name, head=HeadConfig("label_embeddings", SMALL["label_embeddings"]))
        network = build_network(config, CLASSES, ["last"], side)
        stride = 16 if "vit" in name else 32
        assert network(torch.zeros(1, 3, side, side)).features["last"].shape[2:] == (side // stride, side // stride)
