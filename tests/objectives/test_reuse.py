"""SimKD's reused classifier and factor transfer: the objectives by hand and against loops, the networks around them."""

import numpy as np
import pytest
import torch
from conftest import call
from torch.nn import functional as F

from models.weights import read_weights
from models.zoo import NetworkConfig, build_network
from objectives.ft import Ft
from objectives.projected import SimKd
from utils.errors import UsageError


def numbers(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_simkd_by_hand():
    # The student's 2 x 2 map has mean 2.5 and is pooled to 1 x 1; the teacher has 1: (2.5 - 1)^2.
    student, teacher = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]]), torch.ones(1, 1, 1, 1)
    head = torch.zeros(3, 1)
    assert SimKd(student, teacher, head, head)(student, teacher).item() == pytest.approx(2.25)
    assert SimKd(student, student, head, head)(student, student).item() == 0
    for other, theirs in ((torch.ones(1, 2, 1, 1), torch.zeros(3, 2)), (teacher, head + 1)):
        with pytest.raises(ValueError, match=r"a student with the teacher's classifier: set student\.reuses"):
            SimKd(student, other, head, theirs)


def slow_layers(x, layers, transposed):
    """3 x 3 convolutions with leaky ReLUs, pixel by pixel; x: [C, H, W]."""
    for layer in layers:
        if isinstance(layer, torch.nn.LeakyReLU):
            x = np.where(x > 0, x, 0.1 * x)
            continue
        weight = layer.weight.detach().numpy()  # [out, in, 3, 3]; of the transposed [in, out, 3, 3]
        weight = weight.transpose(1, 0, 2, 3)[:, :, ::-1, ::-1] if transposed else weight
        framed = np.pad(x, ((0, 0), (1, 1), (1, 1)))
        made = np.empty((len(weight), *x.shape[1:]))
        for place in np.ndindex(x.shape[1:]):
            window = framed[:, place[0] : place[0] + 3, place[1] : place[1] + 3]
            made[(slice(None), *place)] = (weight * window).sum((1, 2, 3)) + layer.bias.detach().numpy()
        x = made
    return x


@pytest.mark.parametrize("power", [1.0, 2.0])
def test_factor_transfer_against_loops(power):
    student, teacher = numbers(2, 3, 4, 4), numbers(2, 4, 2, 2, seed=1)
    torch.manual_seed(0)
    objective = Ft(student, teacher, rate=0.5, power=power).double()
    encoder, decoder = objective.paraphraser
    distances, errors = [], []
    for ours, theirs in zip(student.numpy(), teacher.numpy(), strict=True):
        translated = slow_layers(ours, objective.translator, False).reshape(2, 2, 2, 2, 2).mean((2, 4))
        factors = slow_layers(theirs, encoder, False)
        units = [x / np.sqrt((x**2).sum()) for x in (translated, factors)]
        distances += [abs(units[0] - units[1]) ** power]
        errors += [(slow_layers(factors, decoder, True) - theirs) ** 2]
    assert objective(student, teacher).item() == pytest.approx(np.mean(distances) + np.mean(errors), rel=1e-9)
    objective.paraphraser.eval()
    assert objective(student, teacher).item() == pytest.approx(np.mean(distances), rel=1e-9)


def test_factor_transfer_over_channels_is_that_of_repdistiller():
    # Factors of one channel pair, (1, 2) and (3, 0) at two pixels: mean squares 2.5 and 4.5, over their length.
    student = teacher = torch.zeros(1, 2, 1, 2)
    objective = Ft(student, teacher, rate=1.0, over_channels=True).eval()
    objective.translator, objective.paraphraser = torch.nn.Identity(), torch.nn.Sequential(*[torch.nn.Identity()] * 2)
    ours, theirs = torch.tensor([[[[1.0, 3.0]], [[2.0, 0.0]]]]), torch.tensor([[[[1.0, 1.0]], [[1.0, 1.0]]]])
    length = (2.5**2 + 4.5**2) ** 0.5
    expected = (abs(2.5 / length - 0.5**0.5) + abs(4.5 / length - 0.5**0.5)) / 2
    assert objective.eval()(ours, theirs).item() == pytest.approx(expected)


def test_the_paraphraser_learns_from_its_reconstruction_alone():
    student, teacher = numbers(2, 3, 4, 4).requires_grad_(), numbers(2, 4, 2, 2, seed=1)
    objective = Ft(student, teacher).double()
    encoder, decoder = objective.paraphraser
    parameters = list(objective.paraphraser.parameters())
    whole = torch.autograd.grad(objective(student, teacher), parameters)
    alone = torch.autograd.grad(F.mse_loss(decoder(encoder(teacher)), teacher), parameters)
    assert all(torch.equal(one, other) for one, other in zip(whole, alone, strict=True))


def test_gradients_of_both():
    student, teacher = numbers(2, 3, 2, 2).requires_grad_(), numbers(2, 3, 2, 2, seed=1)
    head = numbers(5, 3)
    assert torch.autograd.gradcheck(lambda s: SimKd(s, teacher, head, head)(s, teacher), student)
    torch.manual_seed(1)
    objective = Ft(student, teacher).double()
    assert torch.autograd.gradcheck(lambda s: objective(s, teacher), student)


@pytest.mark.parametrize("zero", ["student", "teacher"])
def test_dead_maps_are_no_trouble(zero):
    maps = {"student": torch.randn(2, 3, 4, 4), "teacher": torch.randn(2, 4, 4, 4)}
    maps[zero] = torch.zeros_like(maps[zero])
    student = maps["student"].requires_grad_()
    objective = Ft(student, maps["teacher"])
    loss = objective(student, maps["teacher"])
    loss.backward()
    assert loss.isfinite()
    assert student.grad.isfinite().all()


@pytest.fixture(scope="module")
def reusing():
    torch.manual_seed(0)
    teacher = build_network(NetworkConfig("cifar_resnet8x4"), 10, ["last", "pooled"], 32).eval()
    config = NetworkConfig("cifar_resnet8", reuses="teacher")
    return teacher, build_network(config, 10, ["last"], 32, {"teacher": teacher})


def test_the_student_ends_with_the_teachers_classifier_at_rest(reusing):
    teacher, student = reusing
    outputs = student.eval()(torch.rand(2, 3, 32, 32))
    assert outputs.features["last"].shape == (2, 256, 8, 8)
    expected = F.linear(outputs.features["last"].mean((2, 3)), teacher.head.weight, teacher.head.bias)
    torch.testing.assert_close(outputs.logits, expected)
    assert not any(parameter.requires_grad for parameter in student.head.parameters())
    moving = {name for name, parameter in student.named_parameters() if parameter.requires_grad}
    assert "body.body.conv1.weight" in moving
    assert "body.projector.0.weight" in moving
    assert not [name for name in moving if ".fc." in name]


def test_its_weights_hold_the_classifier(reusing, tmp_path):
    _, student = reusing
    path = tmp_path / "student.pth"
    torch.save(student.classifier.state_dict(), path)
    again = build_network(NetworkConfig("cifar_resnet8", str(path), reuses="teacher"), 10, side=32)
    images = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(again.eval()(images).logits, student.eval()(images).logits)
    with pytest.raises(UsageError, match=r"no teacher 'teacher' \(there is none\), and no weights that hold its"):
        build_network(NetworkConfig("cifar_resnet8", reuses="teacher"), 10, side=32)


@pytest.mark.parametrize("name", ["resnet18", "timm/mobilenetv1_100", "mobilenet_v3_small"])
def test_networks_of_libraries_reuse_too(name):
    torch.manual_seed(0)
    teacher = build_network(NetworkConfig("resnet34"), 10, ["last"], 64)
    student = build_network(NetworkConfig(name, reuses="teacher"), 10, ["last"], 64, {"teacher": teacher}).eval()
    outputs = student(torch.rand(1, 3, 64, 64))
    assert outputs.features["last"].shape[1] == 512
    # No layer waits for a gradient that never comes, as the first of two behind the pooling would.
    outputs.logits.sum().backward()
    assert all(p.grad is not None for p in student.parameters() if p.requires_grad)


def test_what_cannot_be_reused_is_refused(reusing):
    teachers = {"teacher": reusing[0]}

    def build(classes=10, reads=(), **settings):
        return build_network(NetworkConfig("cifar_resnet8", **settings), classes, reads, 32, teachers)

    with pytest.raises(UsageError, match=r"reuses: no teacher 'techer' \(there is teacher\)"):
        build(reuses="techer")
    with pytest.raises(UsageError, match="reuses: teacher has 10 outputs, the student 20"):
        build(classes=20, reuses="teacher")
    with pytest.raises(UsageError, match=r"reuses and embedding: .* set one of them"):
        build(reuses="teacher", embedding=16)
    with pytest.raises(UsageError, match=r"gives no stage\*; it gives logits, last, pooled, and nothing else"):
        build(reads=["stage*"], reuses="teacher")


def test_a_run_trains_resumes_scores_and_exports(digits, tmp_path):
    page = tmp_path / "page.py"
    page.write_text(
        "from dataclasses import replace\n"
        "from configs.digits import cfg as digits\n"
        "from knowledge_distiller import Term\n"
        "from models.zoo import NetworkConfig\n"
        'teachers = {"teacher": NetworkConfig("cifar_resnet14", expect_top1=0)}\n'
        'base = digits("wsld")\n'
        'student = replace(base.student, reuses="teacher")\n'
        'phases = {"distillation": replace(base.last, terms={"simkd": Term("simkd")})}\n'
        'cfg = replace(base, name="run", teachers=teachers, student=student, phases=phases)\n'
    )
    words = ["--cfg", str(page), f"data.data_path={digits / 'lmdb'}", f"train_params.output_path={tmp_path}"]
    words += ["data.batch_size=20", "data.num_workers=0", "train_params.epochs=1"]
    call("train_with_distillation.py", *words)
    call("train_with_distillation.py", *words)
    exported = read_weights(tmp_path / "run" / "student.safetensors")
    assert exported["teacher_classifier.weight"].shape == (10, 64)
    scores = [
        call("train_with_distillation.py", *words, "--eval", str(tmp_path / "run" / name)).stdout.rsplit(":", 1)[1]
        for name in ("best.pt", "student.safetensors")
    ]
    assert scores[0] == scores[1]
    assert "top1" in scores[0]
    call("-m", "figures.tsne", str(tmp_path / "run"))
    hard = ["name=hard", "terms.simkd.objective=cross_entropy"]  # no term looks at the teacher whose classifier it has
    assert "best after epoch 1" in call("train_with_distillation.py", *words, *hard).stdout
