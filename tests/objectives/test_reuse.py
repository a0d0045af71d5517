"""Students that end with their teacher's classifier."""

import pytest
import torch
from conftest import call
from torch.nn import functional as F

from models.heads import HeadConfig
from models.weights import read_weights
from models.zoo import NetworkConfig, build_network
from utils.errors import UsageError


@pytest.fixture(scope="module")
def reusing():
    torch.manual_seed(0)
    teacher = build_network(NetworkConfig("cifar_resnet8x4"), 10, ["last", "pooled"], 32).eval()
    config = NetworkConfig("cifar_resnet8", head=HeadConfig("reused"))
    return teacher, build_network(config, 10, ["last"], 32, {"teacher": teacher})


def test_the_student_ends_with_the_teachers_classifier_frozen(reusing):
    teacher, student = reusing
    outputs = student.eval()(torch.rand(2, 3, 32, 32))
    assert outputs.features["last"].shape == (2, 256, 8, 8)
    expected = F.linear(outputs.features["last"].mean((2, 3)), teacher.classifier.weight, teacher.classifier.bias)
    torch.testing.assert_close(outputs.logits, expected)
    assert not any(parameter.requires_grad for parameter in student.classifier.parameters())
    moving = {name for name, parameter in student.named_parameters() if parameter.requires_grad}
    assert "body.body.conv1.weight" in moving
    assert "body.projector.0.weight" in moving
    assert not [name for name in moving if ".fc." in name]


def test_its_weights_hold_the_classifier(reusing, tmp_path):
    _, student = reusing
    path = tmp_path / "student.pth"
    torch.save(student.network.state_dict(), path)
    again = build_network(NetworkConfig("cifar_resnet8", str(path), head=HeadConfig("reused")), 10, side=32)
    images = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(again.eval()(images).logits, student.eval()(images).logits)
    with pytest.raises(
        UsageError,
        match=r"head\.options\.teacher=teacher: no such teacher \(there is none\), and no weights that hold its",
    ):
        build_network(NetworkConfig("cifar_resnet8", head=HeadConfig("reused")), 10, side=32)


@pytest.mark.parametrize("name", ["resnet18", "timm/mobilenetv1_100", "mobilenet_v3_small"])
def test_networks_of_libraries_reuse_too(name):
    torch.manual_seed(0)
    teacher = build_network(NetworkConfig("resnet34"), 10, ["last"], 64)
    config = NetworkConfig(name, head=HeadConfig("reused"))
    student = build_network(config, 10, ["stage2", "last", "pooled"], 64, {"teacher": teacher}).eval()
    outputs = student(torch.rand(1, 3, 64, 64))
    assert outputs.features["last"].shape[1] == 512
    assert torch.equal(outputs.features["pooled"], outputs.features["last"].mean((2, 3)))
    assert outputs.features["stage2"].shape[2:] == (8, 8)  # of the backbone, as ever
    # No layer waits for a gradient that never comes, as the first of two behind the pooling would.
    outputs.logits.sum().backward()
    assert all(p.grad is not None for p in student.parameters() if p.requires_grad)


def test_what_cannot_be_reused_is_refused(reusing):
    teachers = {"teacher": reusing[0]}

    def build(classes=10, reads=(), **settings):
        return build_network(NetworkConfig("cifar_resnet8", **settings), classes, reads, 32, teachers)

    with pytest.raises(UsageError, match=r"head\.options\.teacher=techer: no such teacher \(there is teacher\)"):
        build(head=HeadConfig("reused", {"teacher": "techer"}))
    with pytest.raises(UsageError, match=r"head\.options\.teacher=teacher: it has 10 outputs, the student 20"):
        build(classes=20, head=HeadConfig("reused"))
    with pytest.raises(
        UsageError, match=r"gives no stage4; it gives logits, stage1, .*, last, pooled, and nothing else"
    ):
        build(reads=["stage4"], head=HeadConfig("reused"))


def test_a_run_trains_resumes_evaluates_and_exports(digits, tmp_path, train):
    config = tmp_path / "config.py"
    config.write_text(
        "from dataclasses import replace\n"
        "from configs.digits import cfg as digits\n"
        "from knowledge_distiller import Term\n"
        "from models.heads import HeadConfig\n"
        "from teachers import TeacherConfig\n"
        'teachers = {"teacher": TeacherConfig("cifar_resnet14", expect=0)}\n'
        "base = digits()\n"
        'student = replace(base.student, head=HeadConfig("reused"))\n'
        'phases = {"distillation": replace(base.last, terms={"simkd": Term("simkd")})}\n'
        'cfg = replace(base, name="run", teachers=teachers, student=student, phases=phases)\n'
    )
    words = ["--cfg", str(config), f"data.data_path={digits / 'lmdb'}", f"train_params.output_path={tmp_path}"]
    words += ["data.batch_size=20", "data.num_workers=0", "epochs=1"]
    train(*words)
    train(*words)
    exported = read_weights(tmp_path / "run" / "student.safetensors")
    assert exported["teacher_classifier.weight"].shape == (10, 64)
    scores = [
        train(*words, "--eval", str(tmp_path / "run" / name)).stdout.rsplit(":", 1)[1]
        for name in ("best.pt", "student.safetensors")
    ]
    assert scores[0] == scores[1]
    assert "top1" in scores[0]
    call("-m", "figures.tsne", str(tmp_path / "run"))
    hard = ["name=hard", "terms.simkd.objective=cross_entropy"]  # no term reads the teacher whose classifier it has
    assert "best after epoch 1" in train(*words, *hard).stdout
