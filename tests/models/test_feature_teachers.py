"""Networks without a classifier, as teachers of features."""

import dataclasses
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from batches import batch_of
from torch import nn

import tasks
from imagenet_train_cfg import cfg as imagenet
from knowledge_distiller import KnowledgeDistiller, Term
from models.heads import HeadConfig
from models.outputs import Outputs
from models.zoo import NetworkConfig, build_network
from teachers import Live, TeacherConfig, build_teacher, scene_of
from training.meters import Meters
from training.teacher_check import check_teachers
from utils.errors import Diverged, UsageError

NONE = HeadConfig("none")
IMAGES = torch.randint(0, 256, (4, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
VIT = "timm/test_vit"


def given(network, images=IMAGES):
    with torch.no_grad():
        return network.eval().predict(images)


@pytest.mark.parametrize(
    "name", ["resnet18", "vit_b_16", "vgg11", "mobilenet_v3_small", "cifar_resnet8", "timm/resnet18"]
)
def test_pooled_is_what_the_classifier_was_given(name):
    side = 224 if name == "vit_b_16" else 64
    with torch.device("meta"):
        whole = build_network(NetworkConfig(name), 10, ["pooled", "last"], side).eval()
        bare = build_network(NetworkConfig(name, head=NONE), 10, ["pooled", "last"], side).eval()
        expected, found = (one(torch.zeros(2, 3, side, side)) for one in (whole, bare))
    assert (found.logits.numel(), bare.num_classes, bare.classifier) == (0, 0, None)
    shapes = [{key: value.shape for key, value in one.features.items()} for one in (found, expected)]
    assert shapes[0] == shapes[1]
    assert shapes[0].keys() == {"pooled", "last"}


def test_weights_of_a_classifier_are_passed_over(tmp_path, capsys):
    whole = build_network(NetworkConfig("resnet18"), 7, ["pooled"], 64)
    torch.save(whole.network.state_dict(), tmp_path / "seven.pth")
    config = NetworkConfig("resnet18", str(tmp_path / "seven.pth"), head=NONE)
    bare = build_network(config, 10, ["pooled"], 64)
    assert torch.equal(given(bare).features["pooled"], given(whole).features["pooled"])
    assert "classifier" not in capsys.readouterr().out
    without = {name: value for name, value in whole.network.state_dict().items() if not name.startswith("fc.")}
    torch.save(without, tmp_path / "seven.pth")
    assert torch.equal(
        given(build_network(config, 10, ["pooled"], 64)).features["pooled"], given(whole).features["pooled"]
    )
    del without["layer1.0.conv1.weight"]
    torch.save(without, tmp_path / "seven.pth")
    with pytest.raises(UsageError, match=r"missing: layer1\.0\.conv1\.weight$"):
        build_network(config, 10, ["pooled"], 64)


@pytest.mark.parametrize(
    ("name", "side", "rows", "channels"),
    [
        ("vit_small_patch14_reg4_dinov2", 224, 16, 384),
        ("vit_small_patch14_dinov2", 518, 37, 384),
        ("vit_small_patch16_dinov3", 256, 16, 384),
        ("eva02_tiny_patch14_224", 224, 16, 192),
        ("convnext_tiny.dinov3_lvd1689m", 64, 2, 768),
        ("test_vit", 64, 4, 64),
    ],
)
def test_backbones_of_timm_give_pooled_features_and_patches(name, side, rows, channels):
    pytest.importorskip("timm")
    with torch.device("meta"):
        network = build_network(NetworkConfig(f"timm/{name}", head=NONE), 10, ["pooled", "last", "stage*"], side).eval()
        features = network(torch.zeros(2, 3, side, side)).features
    assert features["pooled"].shape == (2, channels)
    assert features["last"].shape == (2, channels, rows, rows)
    assert {"stage1", "stage2"} <= features.keys() or rows == 2


def test_patches_are_in_their_places():
    """A change of one patch changes the map there the most."""
    pytest.importorskip("timm")
    torch.manual_seed(0)
    network = build_network(NetworkConfig(VIT, head=NONE), 10, ["last"], 64)
    other = IMAGES.clone()
    other[:, :, 16:32, 48:] = 255 - other[:, :, 16:32, 48:]
    change = (given(network).features["last"] - given(network, other).features["last"]).norm(dim=1)  # [B, 4, 4]
    assert set(change.flatten(1).argmax(1).tolist()) == {1 * 4 + 3}


@pytest.mark.parametrize("prefix", ["", "module.", "teacher.backbone."])
def test_a_file_of_another_size_and_with_dinov2s_names_fits_timms_network(prefix, tmp_path):
    """Names are those of facebookresearch/dinov2's checkpoints: mask_token, and cls_token within pos_embed."""
    pytest.importorskip("timm")
    import timm

    made = timm.create_model("test_vit", num_classes=0, img_size=96)
    state = {name: value.clone() for name, value in made.state_dict().items()}
    held = {**state, "mask_token": torch.zeros(1, 64)}
    torch.save({f"{prefix}{name}": value for name, value in held.items()}, tmp_path / "dinov2.pth")
    config = NetworkConfig(VIT, str(tmp_path / "dinov2.pth"), head=NONE)
    network = build_network(config, 10, ["pooled"], 96).network
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
    smaller = build_network(config, 10, ["pooled"], 64).network
    assert smaller.pos_embed.shape[1] == 4 * 4 + 1
    assert torch.equal(smaller.blocks[0].attn.qkv.weight, made.blocks[0].attn.qkv.weight)
    torch.save({**state, "pos_embed": torch.zeros(3)}, tmp_path / "dinov2.pth")
    with pytest.raises(UsageError, match=r"does not fit VisionTransformer; other shapes: pos_embed"):
        build_network(config, 10, ["pooled"], 64)


def test_a_student_learns_from_features_without_labels_or_logits():
    torch.manual_seed(0)
    teacher = build_teacher(TeacherConfig("cifar_resnet8", head=NONE), [*"0123456789"], ["pooled", "last"], 32)
    student = build_network(NetworkConfig("cifar_resnet8x4"), 10, ["pooled", "last"], 32)
    terms = {"pooled": Term("feature_distance"), "maps": Term("map_distance", options={"distance": "mse"})}
    distiller = KnowledgeDistiller(student, {"teacher": teacher}, terms, IMAGES[:2, :, :32, :32])
    batch = batch_of(IMAGES[:, :, :32, :32], torch.full((4,), -1))
    optimizer = torch.optim.SGD(distiller.parameters(), 0.05)
    losses = []
    for _ in range(5):
        loss = distiller(batch).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert student.classifier.weight.grad is None


def test_a_teacher_whose_features_are_not_finite_is_named():
    teacher = build_teacher(TeacherConfig("cifar_resnet8", head=NONE), [*"0123456789"], ["pooled"], 32)
    student = build_network(NetworkConfig("cifar_resnet8"), 10, ["pooled"], 32)
    images = IMAGES[:, :, :32, :32]
    terms = {"pooled": Term("feature_distance", teacher="big")}
    distiller = KnowledgeDistiller(student, {"big": teacher}, terms, images)
    batch, meters = batch_of(images, torch.full((4,), -1)), Meters([*terms], tasks.get("features"), torch.device("cpu"))
    assert distiller(batch).sound["big"]
    with torch.no_grad():
        next(teacher.network.parameters())[0] = math.nan
    meters.add(distiller(batch), batch, 1)
    with pytest.raises(Diverged, match=r"^teachers\.big gives outputs that are not finite at step 1: "):
        meters.raise_if_diverged()


@pytest.mark.parametrize(
    ("objective", "lacking"), [("kd", "logits"), ("srrl", "head_bias, head_weight"), ("crld", "logits, strong_logits")]
)
def test_objectives_on_logits_are_refused_by_name(objective, lacking):
    teacher = build_teacher(TeacherConfig("cifar_resnet8", head=NONE), [*"0123456789"], ["pooled", "last"], 32)
    student = build_network(NetworkConfig("cifar_resnet8"), 10, ["pooled", "last"], 32)
    with pytest.raises(
        UsageError, match=rf"terms\.x: {objective} reads {lacking} of teacher, which gives features alone"
    ):
        KnowledgeDistiller(student, {"teacher": teacher}, {"x": Term(objective)}, IMAGES[:2, :, :32, :32])


def test_where_a_classifier_is_needed_it_may_not_be_left_out():
    student = dataclasses.replace(imagenet, student=NetworkConfig("resnet18", head=NONE))
    with pytest.raises(UsageError, match=r"student\.head\.name=none: a student keeps its classifier"):
        student.check()
    stored = TeacherConfig("resnet34", "x.pth", head=NONE, store="/somewhere")
    with pytest.raises(UsageError, match=r"teachers\.teacher\.store: it keeps logits"):
        dataclasses.replace(imagenet, teachers={"teacher": stored}).check()
    with pytest.raises(UsageError, match=r"num_classes: the data names no classes"):
        build_network(NetworkConfig("resnet18"), 0, (), 64)
    with pytest.raises(UsageError, match=r"teacher\.classes: it gives features alone"):
        build_teacher(TeacherConfig("resnet18", head=NONE, classes=("a", "b")), ["a", "b"], side=64)
    with pytest.raises(UsageError, match=r"gives no stage4; it gives pooled, stage1"):
        build_network(NetworkConfig("cifar_resnet8", head=NONE), 10, ["stage4"], 32)


def checked(change=lambda features: features, task="single_label", head=NONE, rows=4):
    """Check a teacher whose features are changed, which sees so many images at a time."""
    teacher = build_network(NetworkConfig("cifar_resnet8", head=head), 10, ["pooled"], 32)
    outputs = given(teacher, IMAGES[:, :, :32, :32])
    logits = outputs.logits.split(rows) if outputs.logits.numel() else [outputs.logits] * 4
    parts = iter(zip(logits, change(outputs.features["pooled"]).split(rows)))

    def predict(_images, _scene):
        logits, pooled = next(parts)
        return Outputs(logits, {"pooled": pooled})

    teacher.predict = predict
    batch = batch_of(IMAGES[:, :, :32, :32], torch.full((4,), -1))

    def look(predict):
        for _ in range(4 // rows):
            predict(batch.images["weak"], scene_of(batch))
        return 4

    scorer = SimpleNamespace(look=look)
    configs = {"big": TeacherConfig("cifar_resnet8", "w.pth", head=head)}
    check_teachers(
        nn.ModuleDict({"big": Live(teacher)}), configs, tasks.get(task), batch.targets["labels"].numpy(), scorer
    )


def test_the_check_of_teachers_looks_at_features_and_scores_none(capsys):
    checked()
    checked(task="features", head=HeadConfig(), rows=1)
    line = "teachers.big, cifar_resnet8: gives features of 4 validation images; they are not scored"
    assert capsys.readouterr().out.splitlines() == [line, line]
    with pytest.raises(
        UsageError, match=r"teachers\.big gives features that are not finite: check its weights, w\.pth"
    ):
        checked(lambda features: features * math.nan)
    for rows in (4, 1):
        with pytest.raises(UsageError, match=r"teachers\.big gives the same for all images"):
            checked(lambda features: features[:1].expand(4, -1), rows=rows)


def test_ranks_that_see_an_image_each_cannot_tell_whether_a_teacher_gives_the_same(monkeypatch):
    monkeypatch.setattr("training.teacher_check.gather", lambda images: [images, images])
    seen = SimpleNamespace(look=lambda predict: predict(None, None) or 1)
    teacher = build_network(NetworkConfig("cifar_resnet8", head=NONE), 10, ["pooled"], 32)
    teacher.predict = lambda _images, _scene: Outputs(torch.empty(0), {"pooled": torch.ones(1, 3)})
    configs = {"big": TeacherConfig("cifar_resnet8", "w.pth", head=NONE)}
    check_teachers(nn.ModuleDict({"big": Live(teacher)}), configs, tasks.get("features"), np.zeros(2, int), seen)
