"""Weights of detectors: files, published ones, backbones alone, and classes by name."""

import pytest
import torch
import torchvision
from small_detectors import ALL, NAMES, POINTS, TWO, K, looks, network_of, pixels, scene_of, sharp, untrained
from torch import nn

from models.zoo import NetworkConfig, build_network
from utils.errors import UsageError


@pytest.mark.parametrize("name", ALL)
def test_a_file_with_named_classes_serves_data_in_another_order(name, tmp_path):
    teacher = sharp(network_of(name, classes=("dog", *NAMES), seed=4))
    teacher.classes = ("dog", *NAMES)
    path = tmp_path / "teacher.pth"
    torch.save(teacher.exported(teacher.network.state_dict()), path)
    ours = network_of(name, weights=str(path), classes=("cat", "ant")).eval()
    assert ours.classes == ("cat", "ant")
    images = pixels()
    with torch.no_grad():
        scene = untrained(scene_of(images))
        expected, given = (looks(one.eval(), images, scene) for one in (teacher, ours))
    torch.testing.assert_close(given.logits, expected.logits[..., [0, 4, 2]])
    if name == TWO:
        torch.testing.assert_close(given.context["box_deltas"], expected.context["box_deltas"][:, [0, 4, 2]])
    with pytest.raises(UsageError, match="does not know 'emu'"):
        network_of(name, weights=str(path), classes=("emu", "ant"))


@pytest.mark.parametrize("name", ALL)
def test_a_student_of_other_classes_gets_a_new_head_which_is_printed(name, tmp_path, capsys):
    path = tmp_path / "other.pth"
    state = network_of(name, classes=("a", "b", "c", "d"), seed=4).network.state_dict()
    torch.save(state, path)
    student = network_of(name, weights=str(path), new_classifier=True)
    assert (
        "has 4 classes, whose names it does not note; the data has 3: its classifier is new" in capsys.readouterr().out
    )
    ours = student.network.state_dict()
    changed = {key for key in ours if ours[key].shape != state[key].shape or not torch.equal(ours[key], state[key])}
    assert {key.rpartition(".")[0].rpartition(".")[2] for key in changed} <= {"cls_score", "bbox_pred", "cls_logits"}
    with pytest.raises(UsageError, match="a teacher must know every class"):
        network_of(name, weights=str(path))


@pytest.mark.parametrize(
    ("name", "backbone"), [(TWO, "cifar_resnet8"), ("fasterrcnn_resnet18_c4", "resnet18"), (POINTS, "cifar_resnet8")]
)
def test_a_file_of_a_classifier_serves_the_backbone_of_a_student_alone(name, backbone, tmp_path):
    classifier = build_network(NetworkConfig(backbone), 10, side=32)
    path = tmp_path / "classifier.pth"
    torch.save({"state_dict": {f"module.{key}": one for key, one in classifier.network.state_dict().items()}}, path)
    student = network_of(name, weights=str(path), new_classifier=True).network.state_dict()
    wanted = classifier.network.state_dict()
    both = {key.removeprefix("backbone.body.").removeprefix("roi_heads.box_head."): one for key, one in student.items()}
    shared = [key for key in wanted if not key.startswith(("fc.", "linear."))]
    assert all(torch.equal(both[key], wanted[key]) for key in shared)
    with pytest.raises(UsageError, match=r"alone: heads of .* would be random"):
        network_of(name, weights=str(path))


def test_published_weights_are_chosen_by_the_names_of_classes(monkeypatch):
    """Those of torchvision's class, with random values: nothing is downloaded."""
    name, weights = "retinanet_resnet50_fpn", torchvision.models.detection.RetinaNet_ResNet50_FPN_Weights.COCO_V1
    torch.manual_seed(0)
    state = torchvision.models.get_model(name, weights=None, weights_backbone=None).state_dict()
    state = {key: one for key, one in state.items() if not key.endswith("num_batches_tracked")}
    monkeypatch.setattr(type(weights), "get_state_dict", lambda *_, **__: dict(state))
    config = NetworkConfig(name, "default")
    network = build_network(config, 2, classes=("zebra", "person"))
    categories = weights.meta["categories"]
    last = network.body.head.classification_head.cls_logits.weight.unflatten(0, (9, 3))
    own = state["head.classification_head.cls_logits.weight"].unflatten(0, (9, 91))
    assert torch.equal(last, own[:, [0, categories.index("zebra"), categories.index("person")]])
    assert network.published_top1 is None
    norms = {one.eps for one in network.modules() if isinstance(one, nn.BatchNorm2d)}
    assert len(norms) == 1
    assert max(norms) < 1e-30  # they were trained without
    with pytest.raises(UsageError, match="does not know 'unicorn'"):
        build_network(config, 1, classes=("unicorn",))
    exported = network.exported(network.network.state_dict())
    assert exported._metadata[""]["norm_epsilon"] == max(norms)


def test_weights_that_are_not_there_are_named(monkeypatch):
    with pytest.raises(UsageError, match=r"has no weights COCO_V9; torchvision has COCO_V1, .*IMAGENET1K_V2"):
        build_network(NetworkConfig("fcos_resnet50_fpn", "COCO_V9"), K)
    with pytest.raises(UsageError, match="cifar_resnet8_fpn has no published weights"):
        build_network(NetworkConfig(TWO, "default"), K)
    weights = torchvision.models.ResNet18_Weights.IMAGENET1K_V1
    state = torchvision.models.resnet18().state_dict()
    monkeypatch.setattr(type(weights), "get_state_dict", lambda *_, **__: dict(state))
    student = build_network(NetworkConfig("fasterrcnn_resnet18_fpn", "default"), K, new_classifier=True)
    assert torch.equal(
        student.network.state_dict()["backbone.body.layer3.0.conv1.weight"], state["layer3.0.conv1.weight"]
    )
    with pytest.raises(UsageError, match="alone: heads"):
        build_network(NetworkConfig("fasterrcnn_resnet18_fpn", "IMAGENET1K_V1"), K)
