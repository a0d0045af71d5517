"""Detectors as networks: torchvision's own classes are the reference for detections and losses."""

import copy
from dataclasses import replace

import pytest
import torch
import torchvision
from small_detectors import (
    ALL,
    BOXES,
    CLASSES,
    POINTS,
    RETINA,
    SIDE,
    SMALL,
    TWO,
    K,
    looks,
    network_of,
    pixels,
    scene_of,
    sharp,
    untrained,
)
from torch import nn
from torchvision.models.detection import FCOS, FasterRCNN, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops import FrozenBatchNorm2d, MultiScaleRoIAlign

from models.detectors import DetectorConfig, dense, is_detector
from models.detectors.backbones import backbone_of
from models.detectors.names import parsed
from models.detectors.objects import Objects, in_ignored
from models.detectors.sampling import REGIONS, priorities, sampled
from models.detectors.two_stage import proposal_losses
from models.outputs import Scene
from models.zoo import NetworkConfig, build_network
from utils.errors import UsageError


def all_sampled(network):
    """``network`` with samplers that take every candidate, as torchvision's then do too."""
    for part in ("rpn", "roi_heads"):
        if hasattr(network, part):
            sampler = getattr(network, part).fg_bg_sampler
            sampler.batch_size_per_image, sampler.positive_fraction = 10**6, 0.5
    return network


def theirs(name, network, config=SMALL):
    """torchvision's detector of our settings with our exported weights, which takes images as they are."""
    frozen = copy.deepcopy(network.body.backbone)
    for path, module in list(frozen.named_modules()):
        if isinstance(module, nn.BatchNorm2d):
            frozen.set_submodule(path, FrozenBatchNorm2d(module.num_features))
    anchors = network.body.rpn.anchor_generator if name == TWO else network.body.anchor_generator
    levels = AnchorGenerator(anchors.sizes, anchors.aspect_ratios)
    kept = {"min_size": SIDE, "max_size": SIDE}
    if name == TWO:
        made = FasterRCNN(
            frozen,
            rpn_anchor_generator=levels,
            rpn_post_nms_top_n_train=100,
            rpn_post_nms_top_n_test=50,
            box_roi_pool=MultiScaleRoIAlign(["0", "1", "2"], 7, 2),
            box_head=torchvision.models.detection.faster_rcnn.TwoMLPHead(config.channels * 49, config.representation),
            box_predictor=torchvision.models.detection.faster_rcnn.FastRCNNPredictor(config.representation, K + 1),
            box_detections_per_img=config.detections,
            **kept,
        )
    else:
        kind = RetinaNet if name == RETINA else FCOS
        made = kind(frozen, K + 1, anchor_generator=levels, detections_per_img=config.detections, **kept)
    state = network.exported(network.network.state_dict())
    missing, unexpected = made.load_state_dict(state, strict=False)
    assert not missing
    assert all(one.endswith("num_batches_tracked") for one in unexpected)
    transform = GeneralizedRCNNTransform(SIDE, SIDE, list(network.normalization.mean), list(network.normalization.std))
    made.transform = transform
    return made.eval()


def test_names_are_detector_backbone_and_neck():
    assert parsed("fasterrcnn_mobilenet_v3_large_320_fpn")[1:] == ("fasterrcnn", "mobilenet_v3_large", "320_fpn")
    assert parsed("retinanet_vgg16_bn_c5")[1:] == ("retinanet", "vgg16_bn", "c5")
    assert [is_detector(name) for name in ("fcos_resnet50_fpn", "resnet50", "cifar_resnet8")] == [True, False, False]
    for wrong in ("fasterrcnn_resnet51_fpn", "fcos_resnet50_fpn_v2", "fasterrcnn_mobilenet_v2_c4", "fasterrcnn"):
        with pytest.raises(UsageError, match=f"no detector '{wrong}'"):
            parsed(wrong)


@pytest.mark.parametrize(
    "name",
    [
        *("fasterrcnn_resnet50_fpn", "fasterrcnn_resnet50_fpn_v2", "fasterrcnn_mobilenet_v3_large_320_fpn"),
        *("fcos_resnet50_fpn", "retinanet_resnet50_fpn", "retinanet_resnet50_fpn_v2", "maskrcnn_resnet50_fpn_v2"),
    ],
)
def test_published_names_are_the_detectors_of_torchvision(name):
    """Parameters by name and shape, anchors, and what is kept; on the meta device for want of time."""
    with torch.device("meta"):
        other = torchvision.models.get_model(name, weights=None, weights_backbone=None)
        ours = made_on_meta(name)
    shapes = {key: tuple(one.shape) for key, one in other.state_dict().items() if "mask" not in key}
    assert {key: tuple(one.shape) for key, one in ours.state_dict().items()} == shapes
    rpn, other_rpn = getattr(ours, "rpn", ours), getattr(other, "rpn", other)
    assert rpn.anchor_generator.sizes == other_rpn.anchor_generator.sizes
    assert rpn.anchor_generator.aspect_ratios == other_rpn.anchor_generator.aspect_ratios
    head, other_head = getattr(ours, "roi_heads", ours), getattr(other, "roi_heads", other)
    for key in ("score_thresh", "nms_thresh"):
        assert getattr(head, key) == getattr(other_head, key)
    for key in ("_pre_nms_top_n", "_post_nms_top_n", "score_thresh"):
        assert getattr(rpn, key, None) == getattr(other_rpn, key, None)
    if "retinanet" in name:
        assert ours.head.regression_head._loss_type == other.head.regression_head._loss_type


def made_on_meta(name):
    from models.detectors.making import made

    return made(parsed(name), DetectorConfig(), 90)


@pytest.mark.parametrize(
    ("name", "levels"),
    [
        ("fasterrcnn_resnet18_fpn", (2, 3, 4, 5, 6)),
        ("fasterrcnn_mobilenet_v2_fpn", (2, 3, 4, 5, 6)),
        ("fasterrcnn_mobilenet_v3_large_fpn", (5, 5, 6)),
        ("retinanet_mobilenet_v3_small_fpn", (3, 4, 5, 6, 7)),
        ("fasterrcnn_vgg11_fpn", (2, 3, 4, 5, 6)),
        ("fasterrcnn_vgg11_c4", (4,)),
        ("fasterrcnn_resnet18_c4", (4,)),
        ("fcos_resnet18_c5", (5,)),
        ("fasterrcnn_cifar_resnet8_fpn", (0, 1, 2, 3)),
        ("fcos_cifar_resnet20_a_fpn", (1, 2, 3, 4)),
    ],
)
@torch.no_grad()
def test_levels_are_strides(name, levels):
    backbone, _ = backbone_of(parsed(name), 32)
    maps = backbone.eval()(torch.zeros(1, 3, 128, 128)).values()
    assert backbone.levels == levels
    assert [one.shape[1:] for one in maps] == [(backbone.out_channels, 128 >> level, 128 >> level) for level in levels]
    stages = {key: one for key, one in backbone.stages(torch.zeros(1, 3, 128, 128)).items() if key.startswith("stage")}
    finest = 4 if "cifar" not in name else 1
    assert [128 // one.shape[2] for key, one in sorted(stages.items()) if "_pre" not in key] == [
        finest << place for place in range(len([key for key in stages if "_pre" not in key]))
    ]


@pytest.mark.parametrize("name", ALL)
def test_torchvision_loads_the_weights_and_detects_the_same(name):
    ours = sharp(network_of(name)).eval()
    images = pixels()
    other = theirs(name, ours)
    with torch.no_grad():
        found = ours.predict(images).context
        for place in range(2):
            (expected,) = other([images[place] / 255])
            real = expected["labels"] > 0
            count = min(int(real.sum()), SMALL.detections)
            assert count > 5 or name == TWO
            assert (found["classes"][place] >= 0).sum() >= count > 0
            torch.testing.assert_close(
                found["scores"][place][:count], expected["scores"][real][:count], atol=1e-4, rtol=0
            )
            torch.testing.assert_close(
                found["boxes"][place][:count], expected["boxes"][real][:count], atol=1e-2, rtol=0
            )
            torch.testing.assert_close(found["classes"][place][:count], expected["labels"][real][:count] - 1)


@pytest.mark.parametrize("name", ALL)
def test_losses_are_those_of_torchvision(name):
    config = replace(SMALL, regions=10**6, positive_share=0.5)
    ours = sharp(network_of(name, config=config)).train()
    images = pixels()
    all_sampled(ours.body)
    for norm in ours.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.eval()
    values = []
    for place in range(2):
        one = images[place : place + 1]
        losses = looks(ours, one, scene_of(one, first=place)).context["losses"]
        other = all_sampled(theirs(name, ours)).train()
        real = CLASSES[place] >= 0
        targets = [{"boxes": BOXES[place][real], "labels": CLASSES[place][real] + 1}]
        expected = other([one[0] / 255], targets)
        order = {
            TWO: ("loss_classifier", "loss_box_reg", None, "loss_objectness", "loss_rpn_box_reg"),
            RETINA: ("classification", "bbox_regression", None, None, None),
            POINTS: ("classification", "bbox_regression", "bbox_ctrness", None, None),
        }[name]
        wanted = torch.stack([expected[key] if key else torch.zeros(()) for key in order])
        torch.testing.assert_close(losses, wanted, atol=1e-4, rtol=1e-4)
        values.append(losses)
    both = looks(ours, images, scene_of(images)).context["losses"]
    if name != POINTS:  # whose batch counts as a whole
        torch.testing.assert_close(both, torch.stack(values).mean(0), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", [*ALL, "fasterrcnn_cifar_resnet8_fpn_v2", "retinanet_cifar_resnet8_fpn_v2"])
def test_everything_is_trained_also_where_there_is_no_object(name):
    network = network_of(name, ["fpn*", "stage*"]).train()
    images = pixels()
    outputs = looks(network, images, scene_of(images, learned=((0, 0, 0), (0, 0, 0))))
    losses = outputs.context["losses"]
    assert losses.isfinite().all()
    assert losses[0] > 0
    assert losses[1] == 0
    losses.sum().backward()
    assert [key for key, one in network.named_parameters() if one.grad is None] == []
    assert all(one.grad.isfinite().all() for one in network.parameters())


@pytest.mark.parametrize("name", ALL)
def test_what_is_ignored_counts_neither_as_object_nor_as_background(name):
    network = network_of(name).train()
    images = pixels()
    ignored = looks(network, images, scene_of(images, learned=((1, -1, 1), (1, -1, 0)))).context
    passed = looks(network, images, scene_of(images, learned=((1, 0, 1), (1, 0, 0)))).context
    if name == TWO:
        box = BOXES[0, 1]
        mine = ignored["regions"][ignored["regions"][:, 0] == 0]
        inner = torch.cat([torch.maximum(mine[:, 1:3], box[:2]), torch.minimum(mine[:, 3:], box[2:])], 1)
        share = (inner[:, 2:] - inner[:, :2]).clamp(min=0).prod(1) / (mine[:, 3:] - mine[:, 1:3]).prod(1)
        background = ignored["labels"][: len(mine)] == 0
        assert (share[background] < 0.7).all()
        assert passed["labels"].max() <= K
    else:
        # fewer locations are usable; what is passed over is background
        assert ignored["usable"].sum() < passed["usable"].sum()
    assert ignored["losses"].isfinite().all()
    assert not torch.equal(ignored["losses"], passed["losses"])


def test_anchors_on_what_is_ignored_are_not_learned_from():
    network = all_sampled(network_of(TWO).train().body)
    ignored = torch.tensor([[0.0, 0, 40, SIDE]])
    seen = Objects(BOXES[0, :1], CLASSES[0, :1] + 1, ignored)
    anchors = torch.rand(500, 4, generator=torch.Generator().manual_seed(2)) * 30
    anchors[:, 2:] += anchors[:, :2] + 1
    objectness, deltas = torch.zeros(1, 500, requires_grad=True), torch.zeros(1, 500, 4)
    losses = proposal_losses(
        network.rpn, anchors, objectness, deltas, [seen], Scene(torch.zeros(1, 2), {}, torch.tensor([3]))
    )
    losses[0].backward()
    inside = in_ignored(anchors, ignored)
    wide = (torch.minimum(anchors[:, 2], torch.tensor(40.0)) - anchors[:, 0]).clamp(min=0) / (
        anchors[:, 2] - anchors[:, 0]
    )
    assert torch.equal(inside, wide >= 0.7)
    assert 0 < inside.sum() < 500
    slope = objectness.grad[0]
    assert (slope[inside] <= 0).all()  # objects alone
    assert (slope[inside] < 0).any()
    assert (slope[~inside] > 0).any()


def test_positives_of_fcos_count_over_ranks(monkeypatch):
    """As if another rank had nine times as many: the mean of both ranks' losses is one over all."""
    network = network_of(POINTS, ["positives"]).train()
    images = pixels()
    alone = looks(network, images, scene_of(images)).context
    monkeypatch.setattr(dense, "all_sum", lambda values: values * torch.tensor([10.0, 2.0]))
    both = looks(network, images, scene_of(images)).context
    assert both["positives"] == 5 * alone["positives"]
    torch.testing.assert_close(both["losses"] * 5, alone["losses"])


@pytest.mark.parametrize("name", ALL)
def test_in_half_precision_boxes_and_losses_are_not(name):
    network = network_of(name).train()
    images = pixels()
    with torch.autocast("cpu", torch.bfloat16):
        outputs = looks(network, images, scene_of(images))
        found = network.eval().predict(images)
    assert outputs.context["losses"].dtype == torch.float32
    assert outputs.context["losses"].isfinite().all()
    outputs.context["losses"].sum().backward()
    assert found.context["boxes"].dtype == found.context["scores"].dtype == torch.float32


@pytest.mark.parametrize("name", ["fasterrcnn_resnet18_c4", "retinanet_resnet18_c5"])
def test_plain_ones_learn_and_detect(name):
    network = network_of(name, ["stage3"], config=replace(SMALL, regions=8, proposals_after_nms=(20, 10))).train()
    images = pixels()
    outputs = looks(network, images, scene_of(images))
    assert set(outputs.features) == {"stage3"}
    outputs.context["losses"].sum().backward()
    assert [key for key, one in network.named_parameters() if one.grad is None] == []
    with torch.no_grad():
        assert network.eval().predict(images[:1]).context["classes"].shape == (1, SMALL.detections)


def test_samples_are_a_function_of_sample_epoch_and_candidate():
    index = torch.tensor([3, 2**40])
    one = priorities(index, 5, 1000, REGIONS)
    assert torch.equal(one[1:, :400], priorities(index[1:], 5, 400, REGIONS))
    others = [
        priorities(index + 1, 5, 1000, REGIONS),
        priorities(index, 6, 1000, REGIONS),
        priorities(index, 5, 1000, 1),
    ]
    assert all((one != other).all() for other in others)
    assert (one >= 0).all()
    assert (one.double() / 2**63).mean() == pytest.approx(0.5, abs=0.03)


def test_priorities_are_splitmix64():
    """The generator's first output for seed 0 is published: e220a8397b1dcdaf."""
    from models.detectors.sampling import _mixed

    assert int(_mixed(torch.zeros((), dtype=torch.int64))) % 2**64 == 0xE220A8397B1DCDAF


def test_positive_ones_are_taken_first_and_background_fills_up():
    labels = torch.tensor([[1, 0, -1, 0, 1, 0, 1, 0], [0, 0, 0, 0, -1, -1, 2, 0]])
    priority = torch.arange(8).expand(2, 8)
    positive, background = sampled(labels, 4, 0.5, priority)
    assert positive.nonzero().tolist() == [[0, 4], [0, 6], [1, 6]]
    assert background.nonzero().tolist() == [[0, 5], [0, 7], [1, 2], [1, 3], [1, 7]]


def test_a_batch_in_parts_samples_as_the_whole_whatever_torch_draws():
    network = network_of(TWO).train()
    for norm in network.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.eval()
    images = pixels()
    whole = looks(network, images, scene_of(images)).context
    torch.manual_seed(99)
    part = looks(network, images[1:], scene_of(images[1:], first=1)).context
    mine = whole["regions"][:, 0] == 1
    assert torch.equal(part["labels"], whole["labels"][mine])
    torch.testing.assert_close(part["regions"][:, 1:], whole["regions"][mine][:, 1:], atol=1e-3, rtol=0)
    assert whole["regions"].shape[1] == 5
    assert (whole["box_targets"][whole["labels"] == 0] == 0).all()
    assert whole["box_targets"].isfinite().all()


@pytest.mark.parametrize("name", ALL)
def test_pixels_beyond_the_size_do_not_matter(name):
    network = sharp(network_of(name)).eval()
    images = pixels(1)
    other = images.clone()
    other[:, :, 40:], other[:, :, :, 48:] = 255, 7
    scene = untrained(scene_of(images, sizes=torch.tensor([[40, 48]])))
    with torch.no_grad():
        one, two = network.predict(images, scene), network.predict(other, scene)
    assert torch.equal(one.logits, two.logits)
    boxes = one.context["boxes"]
    assert boxes[..., 2].max() <= 48
    assert boxes[..., 3].max() <= 40
    assert one.context["classes"].shape == one.context["scores"].shape == (1, SMALL.detections)
    assert (one.context["scores"].diff() <= 0).all()


@pytest.mark.parametrize(
    ("name", "read", "gives"),
    [(TWO, "tower2", "pooled, regions"), (RETINA, "pooled", "usable, positives"), (TWO, "stage4", "fpn3, stage1")],
)
def test_what_cannot_be_given_is_refused_with_what_can(name, read, gives):
    with pytest.raises(UsageError, match=f"gives no {read}; it gives .*{gives}"):
        network_of(name, [read])


def test_what_does_not_go_with_a_detector_is_refused():
    with pytest.raises(UsageError, match="multiple of 32"):
        network_of(POINTS, config=replace(SMALL, channels=48))
    with pytest.raises(UsageError, match="has no anchors"):
        network_of(POINTS, config=replace(SMALL, anchor_size=16))
    with pytest.raises(UsageError, match="taps"):
        build_network(NetworkConfig(TWO, taps={"last": "backbone"}), K)
    with pytest.raises(UsageError, match="num_classes"):
        build_network(NetworkConfig(TWO, num_classes=K + 1), K)
