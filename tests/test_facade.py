"""The facade: what is run, how often, in which mode, and what is summed."""

import copy

import pytest
import torch
from batches import batch_of
from torch import Tensor, nn

import objectives
import tasks
from knowledge_distiller import KnowledgeDistiller, Term
from models.outputs import IMAGENET, Normalization, Outputs
from models.zoo import Network, NetworkConfig, build_network
from objectives import contract
from objectives.logits import kd, standardize, wsld
from teachers import Live, averaged
from training.meters import Meters
from utils.errors import Diverged, UsageError

HALF = Normalization((0.5,) * 3, (0.5,) * 3)


class Body(nn.Module):
    def __init__(self, classes=4):
        super().__init__()
        self.conv, self.bn, self.fc = nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.Linear(6, classes)

    def forward(self, images):
        pooled = self.bn(self.conv(images)).relu().mean((2, 3))
        return Outputs(self.fc(pooled), {"pooled": pooled})


def network(seed, normalization=IMAGENET, classes=4):
    torch.manual_seed(seed)
    return Network(Body(classes), normalization, classes, ["pooled"])


def batch(size=5):
    generator = torch.Generator().manual_seed(9)
    images = torch.randint(0, 256, (size, 3, 8, 8), dtype=torch.uint8, generator=generator)
    return batch_of(images, torch.arange(size) % 4)


TERMS = {
    "cross_entropy": Term("cross_entropy", 0.5, options={"label_smoothing": 0.1}),
    "wsld": Term("wsld", 2.5, options={"temperature": 3.0}),
    "kd": Term("kd", teacher=("teacher", "other")),
}


def build(terms=TERMS, normalization=IMAGENET):
    teachers = {"teacher": Live(network(1)), "other": Live(network(2, normalization))}
    return KnowledgeDistiller(network(0), teachers, terms, batch(2)["images"])


def test_the_loss_is_the_weighted_sum_of_named_terms():
    distiller, data = build().eval(), batch()
    result = distiller(data)
    assert list(result.values) == list(TERMS)
    assert set(result.sound) == {"teacher", "other"}
    assert result.sound["teacher"]
    torch.testing.assert_close(result.loss_of_teachers, result.loss - 0.5 * result.values["cross_entropy"])
    teacher, other = (distiller.teachers[name].network.predict(data["images"]).logits for name in ("teacher", "other"))
    torch.testing.assert_close(
        result.values["wsld"], wsld(result.student.logits, teacher, data["labels"], temperature=3.0)
    )
    mean = (teacher.softmax(1) + other.softmax(1)) / 2  # an ensemble averages probabilities
    torch.testing.assert_close(result.values["kd"], kd(result.student.logits, mean.log()))
    expected = 0.5 * result.values["cross_entropy"] + 2.5 * result.values["wsld"] + result.values["kd"]
    torch.testing.assert_close(result.loss, expected)


def test_a_teacher_whose_logits_are_not_finite_is_named():
    distiller, data = build(), batch()
    meters = Meters(list(TERMS), tasks.get("single_label"), torch.device("cpu"))
    meters.add(distiller(data), data, 1)
    meters.raise_if_diverged()
    with torch.no_grad():
        distiller.teachers["other"].network.classifier.bias[0] = float("nan")
    for step in (2, 3):
        meters.add(distiller(data), data, step)
    with pytest.raises(Diverged, match=r"^teachers\.other gives outputs that are not finite at step 2: "):
        meters.raise_if_diverged()


def test_each_term_reads_its_own_ensemble():
    both = {"one": Term("kd", teacher=("teacher", "other")), "two": Term("kd", teacher=("other", "third"))}
    teachers = {name: Live(network(number)) for number, name in enumerate(("teacher", "other", "third"), start=1)}
    distiller = KnowledgeDistiller(network(0), teachers, both, batch(2)["images"]).eval()
    for name, term in both.items():
        alone = KnowledgeDistiller(network(0), teachers, {name: term}, batch(2)["images"]).eval()
        assert torch.equal(distiller(batch()).values[name], alone(batch()).values[name])


def test_an_ensemble_speaks_in_log_probabilities():
    logits = list(torch.randn(3, 2, 5, generator=torch.Generator().manual_seed(0)))
    mean = torch.stack([z.softmax(1) for z in logits]).mean(0)
    torch.testing.assert_close(averaged(logits).exp(), mean)


def test_teachers_stay_as_they_were():
    distiller = build().train()
    before = {name: value.clone() for name, value in distiller.teachers.state_dict().items()}
    assert not any(module.training for one in distiller.teachers.values() for module in one.modules())
    optimizer = torch.optim.SGD(distiller.parameters(), 0.1)
    for _ in range(3):
        distiller(batch()).loss.backward()
        optimizer.step()
    assert all(torch.equal(value, before[name]) for name, value in distiller.teachers.state_dict().items())
    assert all(parameter.grad is None for parameter in distiller.teachers.parameters())
    assert all(parameter.grad is not None for parameter in distiller.student.parameters())


@pytest.mark.parametrize(("normalization", "times"), [(IMAGENET, 1), (HALF, 2)])
def test_images_are_normalised_once_a_normalisation(monkeypatch, normalization, times):
    calls = []
    normalize = Network.normalize
    monkeypatch.setattr(Network, "normalize", lambda net, *given: calls.append(net) or normalize(net, *given))
    distiller = build(normalization=normalization)
    calls.clear()
    distiller(batch())
    assert len(calls) == times


def test_ramps_change_the_weight_and_not_the_term():
    distiller = build({"kd": Term("kd", 2.0, ramp=((1, 0.0), (5, 1.0), (9, 0.5)))}).eval()
    terms, losses = [], []
    for epoch in (0, 1, 3, 5, 7, 100):
        distiller.set_epoch(epoch)
        result = distiller(batch())
        terms.append(result.values["kd"].item())
        losses.append(result.loss.item() / result.values["kd"].item())
    assert losses == pytest.approx([0, 0, 1, 2, 1.5, 1])
    assert len(set(terms)) == 1


def test_one_graph_that_no_ramp_recompiles():
    both = Term("kd", teacher=("teacher", "other"))
    distiller = build({**TERMS, "kd": Term("kd", ramp=((1, 0.1), (9, 1.0))), "both": both}).eval()
    compiled = torch.compile(distiller, fullgraph=True, backend="aot_eager")
    compiled(batch()).loss.backward()
    gradients = [parameter.grad.clone() for parameter in distiller.student.parameters()]
    distiller.zero_grad()
    distiller(batch()).loss.backward()
    for compiled_gradient, parameter in zip(gradients, distiller.student.parameters(), strict=True):
        torch.testing.assert_close(compiled_gradient, parameter.grad)
    with torch._dynamo.config.patch(error_on_recompile=True):
        distiller.set_epoch(5)
        torch.testing.assert_close(compiled(batch()).loss, distiller(batch()).loss)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("size", [1000.0, 30000.0])
def test_extreme_logits_stay_finite_in_every_precision(dtype, size):
    distiller, data = build(), batch(4)
    teachers = [distiller.teachers[name].network for name in ("teacher", "other")]
    for net, sign in zip((distiller.student, *teachers), (1, -1, 1), strict=True):
        with torch.no_grad():
            net.body.fc.weight.mul_(0.1)
            net.body.fc.bias.copy_(sign * size * torch.tensor([1.0, -1.0, 0.0, 1.0]))
    with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        result = distiller(data)
    assert result.student.logits.abs().max() > 0.9 * size
    result.loss.backward()
    assert result.loss.isfinite()
    assert all(parameter.grad.isfinite().all() for parameter in distiller.student.parameters())


def test_no_feature_outlives_its_step():
    student = build()(batch()).student
    assert not student.features
    assert not student.logits.requires_grad


def test_a_teacher_of_several_terms_runs_once():
    distiller, calls = build({"a": Term("kd"), "b": Term("wsld"), "c": Term("kd", teacher=("other", "teacher"))}), []
    for net in (distiller.student, *(one.network for one in distiller.teachers.values())):
        net.body.register_forward_hook(lambda module, *_: calls.append(module))
    distiller(batch())
    assert len(calls) == len(set(calls)) == 3


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_objectives_compute_in_float32_under_mixed_precision(dtype):
    distiller = build()
    with torch.autocast("cpu", dtype):
        result = distiller(batch())
    assert result.student.logits.dtype == dtype
    assert {value.dtype for value in (result.loss, *result.values.values())} == {torch.float32}
    result.loss.backward()
    assert all(parameter.grad.isfinite().all() for parameter in distiller.student.parameters())


def test_an_objective_of_ones_own_takes_one_function(monkeypatch):
    monkeypatch.setattr(contract, "_REGISTRY", dict(contract._REGISTRY))

    @objectives.objective(reads="pooled")
    def pooled_distance(student: Tensor, teacher: Tensor, index: Tensor, *, scale: float = 1.0) -> Tensor:
        assert index.tolist() == [0, 1, 2, 3, 4]
        return scale * (student - teacher).square().mean()

    distiller = build({"mine": Term("pooled_distance", 3.0, teacher="other", options={"scale": 2.0})})
    result = distiller(batch())
    torch.testing.assert_close(result.loss, 3 * result.values["mine"])
    assert result.values["mine"] > 0
    with pytest.raises(UsageError, match="only logits can be averaged over teachers, not pooled"):
        build({"mine": Term("pooled_distance", teacher=("teacher", "other"))})


@pytest.mark.parametrize(
    ("term", "message"),
    [
        (Term("kdd"), "no objective 'kdd'"),
        (Term("kd", options={"temprature": 2.0}), "temprature"),
        (Term("kd", teacher="nobody"), "no teacher 'nobody'"),
        (Term("kd", teacher="wide"), "wide has 9 outputs, the student 4"),
        (Term("kd", teacher=("teacher", "wide")), "wide has 9 outputs, the student 4"),
        (Term("kd", ramp=((5, 1.0), (1, 0.0))), r"terms.term.ramp=5,1.0,1,0.0: its numbers must rise, not 5, 1"),
    ],
)
def test_wrong_terms_are_refused(term, message):
    teachers = {"teacher": Live(network(1)), "wide": Live(network(2, classes=9))}
    with pytest.raises(UsageError, match=message):
        KnowledgeDistiller(network(0), teachers, {"term": term}, batch(2)["images"])


@pytest.mark.parametrize("name", ["loss", "lr"])
def test_a_term_may_not_hide_what_a_line_of_the_log_holds(name):
    with pytest.raises(UsageError, match=f"terms.{name}: give the term another name"):
        build({name: Term("kd", 5.0)})


def test_a_loss_without_terms_is_refused():
    with pytest.raises(UsageError, match="at least one"):
        build({})


def pair(objective, terms):
    reads = {who: objective.features(who) for who in ("student", "teacher")}
    student = build_network(NetworkConfig("cifar_resnet8"), 4, reads["student"], 32)
    teacher = build_network(NetworkConfig("cifar_resnet14"), 4, reads["teacher"], 32)
    example = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
    return KnowledgeDistiller(student, {"teacher": Live(teacher)}, terms, example)


def test_stages_may_be_named_and_may_be_the_students_alone(monkeypatch):
    monkeypatch.setattr(contract, "_REGISTRY", dict(contract._REGISTRY))

    @objectives.objective(reads="stages")
    def energy(student):
        return torch.stack([x.square().mean() for x in student]).sum()

    images = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)
    data = batch_of(images, torch.arange(3))
    alone = pair(objectives.get("energy"), {"energy": Term("energy")})
    assert [len(match.pairs) for match in alone.matches.values()] == [3]
    assert alone(data).values["energy"] > 0
    chosen = pair(objectives.get("at"), {"at": Term("at", stages=(("stage1", "stage3"),))})
    assert chosen.matches["at"].pairs == [("stage1", "stage3")]
    assert chosen(data).values["at"].isfinite()
    with pytest.raises(UsageError, match=r"terms\.at\.stages: no stage7; there is stage1"):
        pair(objectives.get("at"), {"at": Term("at", stages=(("stage7", "stage3"),))})


def test_standardised_logits():
    standard = build({"kd": Term("kd", standardize=True)}).eval()
    data = batch()
    teacher = standard.teachers["teacher"].network.predict(data["images"]).logits
    result = standard(data)
    expected = kd(standardize(result.student.logits), standardize(teacher))
    torch.testing.assert_close(result.values["kd"], expected)
    with pytest.raises(UsageError, match=r"terms\.pkt\.standardize: pkt has no use for logits"):
        build({"pkt": Term("pkt", standardize=True)})


def test_a_teacher_may_go_by_the_statistics_of_each_batch():
    torch.manual_seed(0)
    student = build_network(NetworkConfig("cifar_resnet8"), 4, side=32)
    teacher = build_network(NetworkConfig("cifar_resnet14"), 4, side=32)
    example = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
    live = Live(teacher, batch_statistics=True)
    distiller = KnowledgeDistiller(student, {"teacher": live}, {"kd": Term("kd")}, example)
    images = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    before = {name: value.clone() for name, value in teacher.state_dict().items() if "num_batches" not in name}
    with torch.no_grad():
        by_batch = distiller.train()(batch_of(images)).values["kd"]
        alone = copy.deepcopy(teacher).train().predict(images).logits
        expected = kd(copy.deepcopy(student).predict(images).logits, alone)
        by_own = distiller.eval()(batch_of(images)).values["kd"]
    torch.testing.assert_close(by_batch, expected)
    assert not torch.allclose(by_own, by_batch)
    assert all(torch.equal(value, teacher.state_dict()[name]) for name, value in before.items())


def test_a_frozen_student_goes_into_eval_mode():
    distiller = build()
    distiller.requires_grad_(False)
    assert not any(module.training for module in distiller.train().student.modules())
