"""FCFD beside stages that are called one by one, what its paths leave as it is, and the rest of networks."""

import copy

import pytest
import torch
from batches import batch_of
from torch import nn
from torch.nn import functional as F

import tasks
from knowledge_distiller import KnowledgeDistiller, Term
from models.outputs import IMAGENET, Tap, Tapped
from models.rest import can_go_on, rest_of
from models.zoo import Network, NetworkConfig, build_network
from objectives.fcfd import Fcfd
from teachers import Live
from terms import features_of
from training.optimizer import OptimConfig
from training.phases import Phase
from training.settings import TrainConfig
from training.state import State
from training.step import step_on
from utils.distributed import Ranks
from utils.errors import UsageError

CLASSES, CPU = 5, torch.device("cpu")
SUMS = (("stage1_sum", "stage1_sum"), ("stage2_sum", "stage2_sum"))


def images(size=6, side=32):
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (size, 3, side, side), dtype=torch.uint8, generator=generator)


def build(student="cifar_resnet8", teacher="cifar_resnet8x4", *, stages=(), order=None, side=32, **options):
    terms = {"fcfd": Term("fcfd", options={"warmup": 0.0, **options}, stages=stages)}
    reads, reads_of = features_of(terms.values())
    torch.manual_seed(0)
    taught = build_network(NetworkConfig(teacher), CLASSES, reads_of["teacher"], side)
    trained = build_network(NetworkConfig(student), CLASSES, reads, side)
    with torch.no_grad():
        for one in taught.modules():  # as if it had learned
            if isinstance(one, nn.BatchNorm2d):
                one.running_mean.uniform_(-0.1, 0.1)
                one.running_var.uniform_(0.5, 2)
    teachers = {"teacher": Live(taught, order=order)}
    return KnowledgeDistiller(trained, teachers, terms, images(2, side) // 3).train()


def stage(network, number, x):
    """The stage ``number`` of a thin ResNet, from 0, on what it is given: images or a map."""
    if number == 0:
        x = F.relu(network.bn1(network.conv1(x)))
    for block in network.get_submodule(f"layer{number + 1}"):
        x = F.relu(block(x))
    return x


def by_stages(distiller, inputs, paths, *, temperature, maps):
    """The value, with every stage called by itself on copies of the networks."""
    student, teacher = (copy.deepcopy(one.body) for one in (distiller.student, distiller.teachers["teacher"].network))
    objective = copy.deepcopy(distiller.matches["fcfd"].function)

    def through(network, first, x):
        made = [x := stage(network, number, x) for number in range(first, 3)]
        return made, network.fc(x.mean((2, 3)))

    def differs(x, number):
        whole = F.mse_loss(x, theirs[number])
        pooled = F.mse_loss(F.relu(x).mean((2, 3)), theirs[2].mean((2, 3))) if number == 2 else 0
        return whole + pooled

    ours, theirs = (through(one, 0, x)[0] for one, x in zip((student, teacher), inputs))
    logits = teacher.fc(theirs[2].mean((2, 3)))
    bridges = [*objective.to_teacher, objective.last]
    bridged = [bridge(x) for bridge, x in zip(bridges, ours)]
    distances = [differs(x, number) for number, x in enumerate(bridged)]
    divergences = []
    for to, number in paths:
        if to == "teacher":
            made, given = through(teacher, number + 1, bridged[number])
            distances += [differs(x, number + 1 + i) for i, x in enumerate(made)]
        else:
            _, given = through(student, number + 1, objective.to_student[number](theirs[number]))
        p, q = (F.log_softmax(one / temperature, 1) for one in (given, logits))
        divergences.append(temperature**2 * F.kl_div(p, q, reduction="batchmean", log_target=True))
    return sum(divergences) + maps * sum(distances)


@pytest.mark.parametrize(
    ("direction", "paths"),
    [
        ("both", [("teacher", 0), ("teacher", 1), ("student", 0), ("student", 1)]),
        ("to_teacher", [("teacher", 0), ("teacher", 1)]),
        ("to_student", [("student", 0), ("student", 1)]),
    ],
)
def test_the_value_is_that_of_stages_called_one_by_one(direction, paths):
    options = {"temperature": 3.0, "maps": 0.7}
    distiller = build(direction=direction, paths=len(paths), **options)
    given = batch_of(images())
    networks = distiller.student, distiller.teachers["teacher"].network
    with torch.no_grad():
        expected = by_stages(distiller, [one.normalize(images()) for one in networks], paths, **options)
    value = distiller(given).values["fcfd"]
    torch.testing.assert_close(value, expected, rtol=1e-4, atol=0)


def test_distances_grow_over_the_first_epochs():
    values = []
    for maps, warmup, epoch in ((0.0, 4.0, 1), (1.0, 0.0, 1), (1.0, 4.0, 1), (1.0, 4.0, 9)):
        distiller = build(maps=maps, warmup=warmup)
        distiller.set_epoch(epoch)
        values.append(distiller(batch_of(images())).values["fcfd"].item())
    divergences, whole, quarter, later = values
    assert quarter == pytest.approx(divergences + (whole - divergences) / 4, rel=1e-5)
    assert later == whole > divergences


@pytest.mark.parametrize(
    ("student", "teacher", "side"), [("cifar_resnet8", "cifar_resnet8x4", 32), ("timm/mobilenetv1_100", "resnet18", 64)]
)
def test_a_pass_through_the_rest_changes_no_statistics_and_draws_nothing(student, teacher, side):
    distiller = build(student, teacher, side=side, paths=2, direction="to_student")
    alone = copy.deepcopy(distiller.student)
    before = {name: value.clone() for name, value in distiller.teachers.state_dict().items()}
    drawn = torch.get_rng_state()
    distiller(batch_of(images(side=side))).loss.backward()
    alone(alone.normalize(images(side=side)))
    assert torch.equal(drawn, torch.get_rng_state())
    for name, value in alone.state_dict().items():
        assert torch.equal(value, distiller.student.state_dict()[name]), name
    for name, value in before.items():
        assert torch.equal(value, distiller.teachers.state_dict()[name]), name
    assert all(module.training for module in distiller.student.modules())
    assert not any(module.training for module in distiller.teachers["teacher"].modules())


def slopes(network):
    return {name for name, one in network.named_parameters() if one.grad is not None and one.grad.abs().max() > 0}


def test_gradients_go_through_the_layers_of_the_other_network_and_into_their_own():
    to_teacher = build(direction="to_teacher", paths=1, maps=0.0)
    to_teacher.matches["fcfd"].function.drawn = to_teacher.matches["fcfd"].function.known[:1]
    to_student = build(direction="to_student", paths=1, maps=0.0)
    to_student.matches["fcfd"].function.drawn = to_student.matches["fcfd"].function.known[:1]
    for distiller in (to_teacher, to_student):
        distiller(batch_of(images())).loss.backward()
        assert all(one.grad is None for one in distiller.teachers.parameters())
    parts = {name.split(".")[1] for name in slopes(to_teacher.student)}
    assert parts == {"conv1", "bn1", "layer1"}  # what follows is the teacher's
    parts = {name.split(".")[1] for name in slopes(to_student.student)}
    assert parts == {"layer2", "layer3", "fc"}
    assert {name.split(".")[0] for name in slopes(to_teacher.matches["fcfd"].function)} == {"to_teacher"}
    assert {name.split(".")[0] for name in slopes(to_student.matches["fcfd"].function)} == {"to_student"}


def test_every_parameter_has_a_gradient_whatever_is_drawn():
    distiller = build(paths=1)
    for seed in range(8):
        distiller.set_seed(seed)
        distiller.zero_grad(set_to_none=True)
        distiller(batch_of(images(2))).loss.backward()
        assert all(one.grad is not None for one in distiller.matches.parameters())


def test_paths_are_drawn_by_the_number_of_a_step_alone():
    one, other = build(), build()
    drawn = []
    for number in range(40):
        for distiller in (one, other):
            torch.manual_seed(number * (distiller is one))  # as ranks have
            distiller.set_seed(number << 12)
        function = one.matches["fcfd"].function
        assert function.drawn == other.matches["fcfd"].function.drawn
        assert len({*function.drawn}) == 2
        drawn += function.drawn
    assert {*drawn} == {*function.known} == {(to, number) for to in ("teacher", "student") for number in (0, 1)}


def test_a_step_has_one_number_on_all_ranks(monkeypatch):
    distiller, seeds = build(), []
    phases = {"distillation": Phase(1, distiller.terms, OptimConfig())}
    state = State(distiller, phases, TrainConfig(), tasks.get("single_label"), None, Ranks(0, 1, CPU))
    monkeypatch.setattr(distiller, "set_seed", seeds.append)
    for state.step, rank in ((3, 0), (3, 1), (4, 1)):
        state.ranks = Ranks(rank, 2, CPU)
        step_on(state, distiller.train(), batch_of(images(2)), 0.1)
    assert seeds[0] == seeds[1] != seeds[2]


def test_classes_in_another_order_make_no_difference():
    order = [3, 0, 4, 1, 2]
    usual, moved = build(paths=4), build(paths=4, order=order)
    fc = moved.teachers["teacher"].network.network.fc
    with torch.no_grad():
        for one in (fc.weight, fc.bias):
            one.copy_(one.clone()[torch.tensor(order).argsort()])
    torch.testing.assert_close(moved(batch_of(images())).loss, usual(batch_of(images())).loss)


NETWORKS = [
    *("cifar_resnet20", "cifar_resnet18", "cifar_vgg8", "cifar_mobilenetv2", "cifar_shufflenetv1"),
    *("cifar_shufflenetv2", "cifar_wrn_16_1", "resnet18", "timm/mobilenetv1_100", "densenet121"),
]


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_goes_on_from_its_own_map_as_it_did(name):
    side = 32 if name.startswith("cifar") else 64
    stages = "stage1_sum", "stage2_sum", "stage3_sum"
    stages = stages if "wrn" in name else ("stage1", "stage2", "stage3")
    torch.manual_seed(0)
    network = build_network(NetworkConfig(name), CLASSES, [*stages, "stage*", "last", "rest"], side).eval()
    x = network.normalize(images(3, side))
    with torch.no_grad():
        given = network(x)
        for number, stage in enumerate(stages):
            made = given.rest(stage, given.features[stage])
            torch.testing.assert_close(made.logits, given.logits, rtol=1e-4, atol=1e-4)
            for later in (*stages[number + 1 :], "last"):
                torch.testing.assert_close(made.features[later], given.features[later], rtol=1e-3, atol=1e-3)
            half = given.rest(stage, given.features[stage] / 2)
            assert not torch.equal(half.features["last"], made.features["last"])
            assert can_go_on(network, x, stage, given.features[stage])
    assert not any(module.training for module in network.modules())


class Around(nn.Module):
    """Its last layer reads the images too."""

    def __init__(self):
        super().__init__()
        self.noise, self.first, self.second = nn.Dropout(0.5), nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1)
        self.fc = nn.Linear(4, CLASSES)
        self.around = 0.0

    def forward(self, x):
        seen = self.second(self.first(self.noise(x)))
        return self.fc(seen.mean((2, 3)) + self.around * x.mean((1, 2, 3))[:, None])


def test_a_map_that_is_not_all_that_follows_reads_is_no_place_to_begin():
    network = Around()
    body = Tapped(network, {"stage1": Tap("first"), "stage2": Tap("second")})
    whole = Network(body, IMAGENET, CLASSES, ["stage1", "stage2", "rest"]).train()
    x, given = torch.rand(2, 3, 8, 8), torch.rand(2, 4, 8, 8)
    drawn = torch.get_rng_state()
    rest_of(whole, x)("stage1", given)
    assert torch.equal(drawn, torch.get_rng_state())  # layers before the stage are in eval mode
    assert can_go_on(whole, x, "stage1", given)
    assert whole.training
    assert network.noise.training
    network.around = 1.0
    assert not can_go_on(whole, x, "stage1", given)
    assert not can_go_on(whole, x, "stage9", given)


def test_what_does_not_fit_is_refused_by_name():
    for options, message in (
        ({"direction": "up"}, r"terms\.fcfd\.options\.direction=up: one of both, to_teacher, to_student"),
        ({"paths": 5}, r"terms\.fcfd\.options\.paths=5: there are 4"),
        ({"paths": 3, "direction": "to_teacher"}, r"terms\.fcfd\.options\.paths=3: there are 2"),
    ):
        with pytest.raises(UsageError, match=message):
            build(**options)
    with pytest.raises(UsageError, match=r"terms\.fcfd: fcfd goes on from stage1 of student, which is not what .*_sum"):
        build("cifar_wrn_16_1", "cifar_wrn_16_2")
    assert build("cifar_wrn_16_1", "cifar_wrn_16_2", stages=SUMS)(batch_of(images(2))).loss.isfinite()
    with pytest.raises(UsageError, match="gives no rest"):
        build_network(NetworkConfig("fasterrcnn_resnet50_fpn"), CLASSES, ["rest"], 64)
    with pytest.raises(ValueError, match="a map of 6 x 6 pixels cannot be brought to 4 x 4"):
        Fcfd(*([torch.zeros(1, 2, size, size)] for size in (6, 4)), torch.ones(1), torch.ones(1))
