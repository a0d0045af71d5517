"""Laws of every registered objective on inputs that are hard on divisions, roots, logarithms and differences."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import objectives
from objectives import contract
from objectives.logits import kd, standardize
from objectives.regions import regional_kd

OF_DETECTORS = ("crosskd", "detection", "pseudo_boxes")  # without samples: test_detection_objectives.py and others
OURS = sorted(name for name, one in contract._REGISTRY.items() if one.made.__module__.startswith("objectives."))
OURS = [name for name in OURS if name not in OF_DETECTORS]
OF_LOGITS = [name for name in OURS if "logits" in contract._REGISTRY[name].reads_of("student")]
CLASSES, CHANNELS = 6, 5


def numbers(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


HEAD = {"head_weight": numbers(CLASSES, CHANNELS, seed=90), "head_bias": numbers(CLASSES, seed=91)}


def network(seed, batch=4):
    """What an objective can read of a network; maps have the same channels everywhere, so that all objectives fit."""
    maps = [numbers(batch, CHANNELS, size, size, seed=seed + size) for size in (8, 4, 2)]
    logits = {"logits": numbers(batch, CLASSES, seed=seed), "strong_logits": numbers(batch, CLASSES, seed=seed + 1)}
    features = {"stages": maps, "stages_pre": [2 * x for x in maps], "last": maps[-1], "pooled": maps[-1].mean((2, 3))}
    features |= {"levels": maps, "towers": maps, "box_deltas": numbers(batch, CLASSES, 4, seed=seed + 2)}
    features["token"] = numbers(batch, CLASSES, seed=seed + 3)  # logits of a second classifier
    return {**logits, **features, "label_embeddings": numbers(batch, CLASSES, CHANNELS, seed=seed)}


def evaluate(name, student, teacher, labels, dtype=torch.float32):
    """The value, and the gradients of what the student gives and of the objective's own parameters."""
    sides, objective = {}, objectives.get(name)
    for who, side in (("student", student), ("teacher", teacher)):
        sides[who] = each(
            {**HEAD, **side}, lambda x, who=who: x.detach().to(dtype, copy=True).requires_grad_(who == "student")
        )
    known = {"labels": labels, "index": torch.arange(len(labels)), "all_labels": torch.arange(16) % CLASSES}
    known["present"] = present_of(labels, student["logits"].shape[1])
    known |= scene_of(labels)

    def given(parameter):
        who, what = objective.place(parameter)
        if what == "norms":
            return [nn.BatchNorm2d(CHANNELS), None, None]
        if what == "rest":
            return rest
        return known.get(what) if who == "batch" or what in known else sides[who][what]

    torch.manual_seed(0)
    function, parameters = objective.made, []
    if isinstance(function, type):
        function = function(*map(given, objective.sized_by)).to(dtype)
        parameters = function.parameters()
    value = function(*map(given, objective.inputs))
    value.backward()
    leaves = [x for one in sides["student"].values() for x in (one if isinstance(one, list) else [one])]
    return value.item(), [x.grad for x in (*leaves, *parameters) if x.grad is not None]


def rest(number, x):
    """Of a network that pools each stage to the next, and ends with its classifier."""
    behind = [x := F.avg_pool2d(x, 2) for _ in range(2 - number)]
    return behind, x, F.linear(x.mean((2, 3)), HEAD["head_weight"].to(x), HEAD["head_bias"].to(x))


def present_of(labels, classes):
    """Each label and every third class; one of them is to be ignored."""
    distance = (torch.arange(classes) - labels[:, None]) % classes  # [B, C]
    return ((distance % 3 == 0).to(torch.int8) - 2 * (distance == 3)).to(torch.int8)


def scene_of(labels):
    """One object an image, two in the first, none in the last, and what a detector's matching says of them."""
    batch = len(labels)
    boxes = torch.tensor([[2.0, 3.0, 20.0, 11.0], [10.0, 8.0, 31.0, 32.0]]).expand(batch, 2, 4)
    classes = torch.stack([labels, torch.where(torch.arange(batch) == 0, labels, -1)], 1)
    classes[-1] = -1
    usable = torch.arange(8 * 8 + 4 * 4 + 2 * 2).expand(batch, -1) % (torch.arange(batch)[:, None] + 2) == 0
    scene = {"boxes": boxes, "classes": classes, "learned": (classes >= 0).to(torch.int8), "usable": usable}
    return {**scene, "images": torch.zeros(batch, 3, 32, 32), "box_targets": numbers(batch, 4, seed=92)}


def each(side, change):
    return {what: [change(x) for x in x] if isinstance(x, list) else change(x) for what, x in side.items()}


def by_row(x, row):
    return row.to(x).view(-1, *[1] * (x.ndim - 1))


CHANGES = {
    "nothing": lambda x: x,
    "zero": torch.zeros_like,
    "one sample zero": lambda x: x * by_row(x, torch.arange(len(x)) > 0),
    "one sample repeated": lambda x: x[:1].expand_as(x),
    "constant": lambda x: torch.full_like(x, 0.3),
    "constant samples": lambda x: by_row(x, x.flatten(1)[:, 0]).expand_as(x),
    "constant maps": lambda x: x.mean((2, 3), keepdim=True).expand_as(x) if x.ndim == 4 else x,
    "dead channels": lambda x: x * (torch.arange(x.shape[1]) > 2).view(-1, *[1] * (x.ndim - 2)),
}
PAIRS = dict.fromkeys(pair for a in CHANGES for pair in ((a, a), (a, "nothing"), ("nothing", a)))
LABELS = torch.tensor([3, 1, 0, 5])
NORMALISE_SAMPLES = ("era", "reviewkd", "reviewkd_pre", "srd")  # by batch norm of vectors: test_facade.py


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", OURS)
def test_gradients_stay_small_where_there_is_nothing_to_compare(name, dtype):
    sides = {pair: [each(network(10 * (i + 1)), CHANGES[one]) for i, one in enumerate(pair)] for pair in PAIRS}
    sides["the same"] = [network(10), network(10)]
    if name != "simkd":  # whose student has the teacher's classifier
        sides["a head of zeros"] = [{**network(10), **each(HEAD, torch.zeros_like)}, network(20)]
    if name not in NORMALISE_SAMPLES:
        sides["one sample"] = [network(10, batch=1), network(20, batch=1)]
    for which, (student, teacher) in sides.items():
        value, gradients = evaluate(name, student, teacher, LABELS[: len(student["logits"])], dtype)
        assert math.isfinite(value), which
        assert max(gradient.abs().max() for gradient in gradients) < 1e4, which  # not for NaN


COMPARE_SAMPLES = ("cc", "consecutive_correlation", "pkt", "rkd_angle", "rkd_distance", "sp")


@pytest.mark.parametrize("name", COMPARE_SAMPLES)
def test_a_sample_alone_has_no_relations(name):
    assert evaluate(name, network(10, batch=1), network(20, batch=1), LABELS[:1])[0] == pytest.approx(0, abs=1e-12)


def logits_of(classes):
    """Pairs of logits of student and teacher [4, K] and labels [4], by what is hard about them."""
    student, teacher = numbers(4, classes, seed=1), numbers(4, classes, seed=2)
    labels = torch.randint(0, classes, (4,), generator=torch.Generator().manual_seed(classes))
    right, wrong = (torch.arange(classes) == y[:, None] % classes for y in (labels, labels + 1))  # [4, K]
    pairs = {
        "next to uniform": (0.01 * student, 0.01 * teacher),
        "usual": (3 * student, 3 * teacher),
        "sure": (student + 15 * right, teacher + 15 * right),
        "very sure": (student + 40 * right, teacher + 40 * right),
        "the student is wrong": (student + 15 * wrong, teacher + 15 * right),
        "both are wrong": (student + 15 * wrong, teacher + 15 * wrong),
        "next to the teacher": (teacher + 0.01 * student, teacher),
        "sure and next to the teacher": (teacher + 15 * right + 0.01 * student, teacher + 15 * right),
        "far from zero": (student + 100, teacher - 100),
    }
    return pairs, labels


def by_standardized(student, teacher, labels):
    return kd(standardize(student), standardize(teacher))


def by_region(student, teacher, labels):
    return regional_kd(torch.stack([student, teacher], 2), torch.stack([teacher, student], 2), labels, temperature=4.0)


def in_both(name, student, teacher, labels):
    """Value and gradient in float64 and float32, of the same numbers."""
    for dtype in (torch.float64, torch.float32):
        if isinstance(name, str):
            given = {"pooled": numbers(4, 3), "head_weight": numbers(student.shape[1], 3, seed=93)}
            sides = ({"logits": x, "strong_logits": 0.7 * x, **given} for x in (student, teacher))
            value, (gradient, *_) = evaluate(name, *sides, labels, dtype)
        else:
            leaf = student.to(dtype, copy=True).requires_grad_()
            result = name(leaf, teacher.to(dtype), labels)
            result.backward()
            value, gradient = result.item(), leaf.grad
        yield value, gradient.double()


COMPARE_PAIRS_OF_CLASSES = ("wkd_l",)


@pytest.mark.parametrize("classes", [2, 10, 1000, 100_000])
@pytest.mark.parametrize("name", [*OF_LOGITS, by_standardized, by_region])
def test_float32_is_as_good_as_float64(name, classes):
    if name is by_standardized and classes == 2:
        pytest.skip("two standardised logits are always +-0.7")
    if name in COMPARE_PAIRS_OF_CLASSES and classes > 1000:
        pytest.skip("it has a number for each two classes")
    pairs, labels = logits_of(classes)
    for which, (student, teacher) in pairs.items():
        (value, gradient), (ours, our_gradient) = in_both(name, student, teacher, labels)
        assert ours == pytest.approx(value, rel=1e-5), which
        limit = max(2e-4 * gradient.abs().max(), torch.finfo(torch.float32).tiny)
        assert (our_gradient - gradient).abs().max() <= limit, which


COMPARE_CLASSES = [name for name in OF_LOGITS if contract._REGISTRY[name].logits == "softmax"]
COMPARE_CLASSES += ["kd", "mce", "partial_softmax"]


@pytest.mark.parametrize("name", [*COMPARE_CLASSES, by_standardized, by_region])
def test_a_single_class_teaches_nothing(name):
    for value, gradient in in_both(name, numbers(4, 1), numbers(4, 1, seed=1), torch.zeros(4, dtype=torch.long)):
        assert math.isfinite(value)
        assert gradient.eq(0).all()
