"""What a config may set of a term, and what goes wrong in an objective of one's own: always one line that names it."""

import inspect
import math

import pytest
import torch
from batches import batch_of
from torch import Tensor, nn

import objectives
from knowledge_distiller import KnowledgeDistiller, Term
from models.outputs import IMAGENET, Outputs
from models.zoo import Network
from objectives import contract
from objectives.contract import Range
from teachers import Live
from terms import Example, Match
from utils.errors import UsageError

OURS = sorted(name for name, one in contract._REGISTRY.items() if one.is_ours)
READS = ["stage1", "stage2", "stage1_pre", "stage2_pre", "last", "pooled"]
BATCH = batch_of(torch.zeros(2, 3, 8, 8, dtype=torch.uint8), torch.tensor([0, 1]))


def options_of(name):
    """The options, and what each is by default."""
    parameters = inspect.signature(objectives.get(name).made).parameters
    return {option: parameters[option].default for option in objectives.get(name).options}


class Body(nn.Module):
    """Two stages, the pooled features and a linear classifier."""

    def __init__(self, classes):
        super().__init__()
        self.first, self.second, self.fc = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 2, 2), nn.Linear(4, classes)

    def forward(self, images):
        first = self.first(images)
        second = self.second(first)
        pooled = second.mean((2, 3))
        features = {"stage1": first, "stage2": second, "last": second, "pooled": pooled}
        features |= {"stage1_pre": first, "stage2_pre": second}
        return Outputs(self.fc(pooled), features, {"head_weight": self.fc.weight, "head_bias": self.fc.bias})


def build(term, classes=4):
    networks = [Network(Body(one), IMAGENET, one, READS) for one in (4, classes)]
    return KnowledgeDistiller(networks[0], {"teacher": Live(networks[1])}, {"x": term}, BATCH["images"])


def refused(name, option, value):
    """The message, of a term that is checked before anything is sized."""
    nobody = Example({"student": nn.Module(), "teacher": nn.Module()}, {}, {}, None)
    for network in nobody.networks.values():
        network.num_classes, network.logits_for = 4, ""
    with pytest.raises(UsageError, match=rf"^terms\.x\.options\.{option}=") as caught:
        Match("x", Term(name, options={option: value}), nobody)
    return str(caught.value)


@pytest.mark.parametrize("name", [name for name in OURS if options_of(name)])
def test_options_out_of_their_range_or_of_another_kind_are_refused_by_name(name):
    for option, default in options_of(name).items():
        if isinstance(default, bool | str):
            assert "no value like its default" in refused(name, option, 1.0), option
            continue
        span = objectives.get(name).options[option].range
        assert span.has(objectives.get(name).options[option].checked(default))
        below = max(span.above, math.nextafter(span.least, -math.inf))
        assert math.isfinite(below), option
        wrong = [math.nan, math.inf, -math.inf, "2", True, below, -1e9]
        if span.most < math.inf:
            wrong.append(math.nextafter(span.most, math.inf))
        if isinstance(default, int):
            wrong.append(default + 0.5)
            assert type(objectives.get(name).options[option].checked(2.0)) is int  # as command lines give it
        for value in wrong:
            assert refused(name, option, value), value


def test_what_depends_on_another_option_or_on_the_networks_is_refused_by_name():
    for name, options, message in (
        ("ofd", {"kernel_size": 2}, r"terms\.x\.options\.kernel_size=2: an odd number"),
        ("vid", {"variance": 0.1, "epsilon": 0.2}, r"terms\.x\.options\.variance=0\.1: above epsilon=0\.2"),
        ("lshfm", {"bias": "mode"}, r"terms\.x\.options\.bias=mode: one of zero, mean, median"),
        ("kd", {"temprature": 2.0}, r"terms\.x\.options: kd has no option temprature; near: temperature"),
    ):
        with pytest.raises(UsageError, match=message):
            build(Term(name, options=options))
    for name in ("kd", "catkd"):
        with pytest.raises(UsageError, match=r"terms\.x: teacher has 5 outputs, the student 4"):
            build(Term(name), classes=5)


def own(monkeypatch, made, **ranges):
    monkeypatch.setattr(contract, "_REGISTRY", dict(contract._REGISTRY))
    objectives.objective(reads="logits", **ranges)(made)


def of_each_sample(student: Tensor, teacher: Tensor) -> Tensor:
    return (student - teacher).square().mean(1)


def a_number(student: Tensor) -> float:
    return 1.0


def with_targets(student: Tensor, targets: Tensor) -> Tensor:
    return student.mean()


def of_a_ninth_stage(student: Tensor, teacher_stage9: Tensor) -> Tensor:
    return student.mean()


def with_a_slip(student: Tensor, teacher: Tensor) -> Tensor:
    return student[99].sum()


def that_minds(student: Tensor, *, scale: float = 1.0) -> Tensor:
    raise ValueError(f"scale={scale}: not today")


def that_needs(student: Tensor, *, scale: float) -> Tensor:
    return scale * student.mean()


class Sized(nn.Module):
    def __init__(self, student: Tensor) -> None:
        super().__init__()
        self.linear = nn.Linear(student.shape[7], 1)

    def forward(self, student: Tensor) -> Tensor:
        return self.linear(student).mean()


@pytest.mark.parametrize(
    ("made", "options", "message"),
    [
        (of_each_sample, {}, r"^terms\.x: of_each_sample must return a scalar tensor, not a tensor \[2\]$"),
        (a_number, {}, r"^terms\.x: a_number must return a scalar tensor, not float$"),
        (
            with_targets,
            {},
            r"^terms\.x: with_targets asks for 'targets'; there is student, teacher, images, sizes, labels, index$",
        ),
        (of_a_ninth_stage, {}, r"^terms\.x: of_a_ninth_stage reads stage9 of teacher, which has logits, stage1,"),
        (with_a_slip, {}, r"test_terms.py[\s\S]*student\[99\][\s\S]*\nterms\.x: with_a_slip raised IndexError: .*$"),
        (Sized, {}, r"test_terms.py[\s\S]*shape\[7\][\s\S]*\nterms\.x: sized raised IndexError: .*$"),
        (that_minds, {"scale": 2.0}, r"^terms\.x\.options\.scale=2\.0: not today$"),
        (that_minds, {"scale": math.nan}, r"^terms\.x\.options\.scale=nan: expected a number"),
        (
            that_minds,
            {"scale": 0.0},
            r"^terms\.x\.options\.scale=0\.0: at least 1 and at most 3, like its default",
        ),
        (that_needs, {}, r"^terms\.x\.options: that_needs needs scale$"),
    ],
)
def test_mistakes_of_an_own_objective_are_named(monkeypatch, made, options, message):
    own(monkeypatch, made, **({"scale": Range(1, 3)} if made is that_minds else {}))
    with pytest.raises(UsageError, match=message) as caught:
        build(Term(made.__name__.lower(), options=options))(BATCH)
    assert "terms.py" not in str(caught.value).replace("test_terms.py", "")  # the traceback begins in one's own file


def test_a_full_memory_stays_what_it_is(monkeypatch):
    def too_large(student: Tensor) -> Tensor:
        raise torch.OutOfMemoryError("no")

    own(monkeypatch, too_large)
    with pytest.raises(torch.OutOfMemoryError):
        build(Term("too_large"))(BATCH)


@pytest.mark.parametrize("name", ["reviewkd", "reviewkd_pre", "srd"])
def test_objectives_that_normalise_over_the_batch_refuse_a_batch_of_one(name):
    distiller = build(Term(name)).train()
    with pytest.raises(
        UsageError, match=rf"terms\.x: {name} normalises over the batch: data\.batch_size must give each"
    ):
        distiller(BATCH.chunk(2)[0])
    assert distiller(BATCH).values["x"].isfinite()
