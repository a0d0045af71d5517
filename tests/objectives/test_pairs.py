"""Every objective on every pair of networks that the literature publishes, forward and backward."""

from dataclasses import replace

import pytest
import torch
from batches import batch_of

from configs._pieces import PAIRS as PUBLISHED
from knowledge_distiller import KnowledgeDistiller, Term
from models.heads import HeadConfig
from models.taps import pair_stages
from models.zoo import NetworkConfig, build_network
from objectives import contract, get
from teachers import Live
from terms import features_of
from utils.errors import UsageError

PAIRS = [(f"cifar_{teacher}", f"cifar_{student}", 32) for teacher, student in PUBLISHED["cifar100"]]
PAIRS += [(*pair, 64) for pair in PUBLISHED["imagenet"]]
OPTIONS = {"crd": {"contrasts": 32}, "lshfm": {"bias": "median", "correct_only": True}}
DRAWING = ("crd", "diffkd", "mgd_last", "vitkd")  # contrasts, noise and masks
CLASSES, SAMPLES = 10, 40


def build(teacher, student, side, names):
    terms = {name: Term(name, options=OPTIONS.get(name, {})) for name in names}
    if "fcfd" in names and "wrn" in teacher + student:
        sums = [tuple(f"stage{n}{'_sum' * ('wrn' in one)}" for one in (student, teacher)) for n in (1, 2)]
        terms["fcfd"] = replace(terms["fcfd"], stages=(*sums,))
    reads, reads_of = features_of(terms.values())
    torch.manual_seed(0)
    networks = {"teacher": build_network(NetworkConfig(teacher), CLASSES, reads_of["teacher"], side)}
    head = HeadConfig("reused") if "simkd" in names else HeadConfig()
    if "lshfm" in names:
        head = HeadConfig("embedding", {"dimensions": networks["teacher"].classifier.in_features})
    trained = build_network(NetworkConfig(student, head=head), CLASSES, reads, side, networks)
    example = torch.zeros(2, 3, side, side, dtype=torch.uint8)
    return KnowledgeDistiller(
        trained, {name: Live(one) for name, one in networks.items()}, terms, example, torch.arange(SAMPLES) % CLASSES
    )


def batch(side, size=4):
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (size, 3, side, side), dtype=torch.uint8, generator=generator)
    index = torch.randperm(SAMPLES, generator=generator)[:size]
    present = (torch.arange(CLASSES) % (2 + index[:, None] % 3) == 0).to(torch.int8)
    return batch_of(images, index % CLASSES, images.flip(3), index, present=present)


def all_names():
    """Of the objectives that a network alone has what they read of: label-wise embeddings are a head's."""
    names = [name for name in contract._REGISTRY if get(name).made.__module__.startswith("objectives.")]
    of_others = ("label_embeddings", "levels", "towers", "box_deltas", "losses", "losses_on")  # heads and detectors
    return sorted(name for name in names if get(name).reads not in of_others and name != "distillation_token")


@pytest.mark.parametrize(("teacher", "student", "side"), PAIRS)
def test_every_objective_trains_every_published_pair(teacher, student, side):
    names = all_names()
    assert len(names) >= 38
    for name in ("lshfm", "simkd"):  # they change the student's classifiers
        names.remove(name)
    train_a_step(teacher, student, side, names)
    train_a_step(teacher, student, side, ["cross_entropy", "lshfm"])
    train_a_step(teacher, student, side, ["cross_entropy", "simkd"])


def train_a_step(teacher, student, side, names):
    distiller = build(teacher, student, side, names).train()
    statistics = {name: value.clone() for name, value in distiller.teachers.state_dict().items()}
    result = distiller(batch(side))
    for name in names:
        assert result.values[name].isfinite(), name
    result.loss.backward()
    for name, parameter in distiller.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
    assert all(torch.equal(value, statistics[name]) for name, value in distiller.teachers.state_dict().items())


def test_gradients_keep_the_memory_format_of_the_maps():
    other = {}
    for name in [name for name in all_names() if get(name).needs_teacher]:
        distiller = build("cifar_resnet8x4", "cifar_resnet8", 32, [name]).train()
        distiller.to(memory_format=torch.channels_last)

        def look(gradient, name=name):
            if not gradient.is_contiguous(memory_format=torch.channels_last):
                other.setdefault(name, gradient.stride())

        def follow(module, given, made, look=look):
            if made.requires_grad:
                made.register_hook(look)

        for module in distiller.modules():
            if isinstance(module, (torch.nn.Conv2d, torch.nn.BatchNorm2d)):
                module.register_forward_hook(follow)
        inputs = batch(32)
        images = inputs["images"].contiguous(memory_format=torch.channels_last)
        distiller(replace(inputs, images={"weak": images, "strong": images.flip(3)})).loss.backward()
    assert not other


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # by torch 2.10's compiler
def test_every_objective_is_part_of_one_graph():
    names = [name for name in all_names() if name not in ("lshfm", "simkd", "fcfd")]  # fcfd draws which layers run
    torch.manual_seed(5)
    expected = build("cifar_resnet20", "cifar_resnet8", 32, names).train()(batch(32))
    distiller = build("cifar_resnet20", "cifar_resnet8", 32, names).train()
    result = torch.compile(distiller, fullgraph=True, backend="aot_eager")(batch(32))
    result.loss.backward()
    for name in names:
        if name not in DRAWING:
            torch.testing.assert_close(result.values[name], expected.values[name], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_every_objective_is_finite_under_autocast(dtype):
    names = [name for name in all_names() if name not in ("lshfm", "simkd")]
    distiller = build("cifar_resnet20", "cifar_resnet8", 32, names).train()
    with torch.autocast("cpu", dtype):
        result = distiller(batch(32))
    for name in names:
        assert result.values[name].isfinite(), name
        assert result.values[name].dtype == torch.float32
    result.loss.backward()
    assert all(p.grad.isfinite().all() for p in distiller.parameters() if p.grad is not None)


LOGITS = [
    "kd",
    "dkd",
    "wsld",
    "dist",
    "nkd",
    "ttm",
    "class_correlation",
    "batch_correlation",
    "mlkd",
    "cross_entropy",
    "ctkd",
]


@pytest.mark.parametrize("scale", [0.0, 50.0, 1e3, 1e4])
@pytest.mark.parametrize("name", LOGITS)
def test_extreme_logits_give_the_values_of_float64(name, scale):
    generator = torch.Generator().manual_seed(3)
    student, teacher = (scale * torch.randn(6, 5, generator=generator) for _ in range(2))
    teacher[0] = student[0]
    labels = torch.arange(6) % 5
    entry, results = get(name), []
    for dtype in (torch.float32, torch.float64):
        logits = student.detach().to(dtype).requires_grad_()
        given = {"student": logits, "teacher": teacher.to(dtype), "labels": labels}
        function = entry.made().to(dtype) if isinstance(entry.made, type) else entry.made
        loss = function(*(given[name] for name in entry.inputs if name in given))
        loss.backward()
        assert loss.isfinite()
        assert logits.grad.isfinite().all()
        results.append((loss.double().detach(), logits.grad.double()))
    for single, double in zip(*results, strict=True):
        torch.testing.assert_close(single, double, rtol=1e-3, atol=1e-5 * max(1.0, double.abs().max().item()))


def test_stages_are_paired_by_resolution():
    reads = ["stage*"]
    features = {}
    for name in ("cifar_resnet32x4", "cifar_mobilenetv2", "cifar_vgg13", "resnet50", "timm/mobilenetv1_100"):
        network = build_network(NetworkConfig(name), 10, reads, 64).eval()
        with torch.no_grad():
            features[name] = network(torch.zeros(1, 3, 64, 64)).features
    same = [(f"stage{number}", f"stage{number}") for number in (1, 2, 3, 4)]
    assert pair_stages(features["cifar_vgg13"], features["cifar_vgg13"]) == same
    assert pair_stages(features["timm/mobilenetv1_100"], features["resnet50"]) == same
    pairs = pair_stages(features["cifar_mobilenetv2"], features["cifar_resnet32x4"])
    assert pairs == [("stage1", "stage2"), ("stage2", "stage3")]
    deepest = {"stage1": torch.zeros(1, 2, 7, 7), "stage2": torch.zeros(1, 2, 5, 5)}
    assert pair_stages(deepest, features["resnet50"]) == [("stage2", "stage4")]


def test_levels_are_paired_by_stride():
    fpn = [
        dict.fromkeys((f"fpn{n}" for n in levels), torch.zeros(1, 2, 4, 4)) for levels in ((10, 2, 3, 4), (3, 4, 10))
    ]
    tower = {"tower3": torch.zeros(1, 2, 4, 4)}
    expected = [(name, name) for name in ("fpn3", "fpn4", "fpn10")]
    assert pair_stages({**fpn[0], **tower}, {**tower, **fpn[1]}, "fpn") == expected
    assert pair_stages({**fpn[0], **tower}, {**tower, **fpn[1]}, "tower") == [("tower3", "tower3")]
    c4, c5 = ({name: torch.zeros(1, 2, 4, 4)} for name in ("fpn4", "fpn5"))
    with pytest.raises(
        UsageError, match=r"no fpn\* of one stride to compare: the student has fpn4, the teacher has fpn5"
    ):
        pair_stages(c4, c5, "fpn")
    with pytest.raises(UsageError, match=r"no tower\* of one stride .*the student has none, the teacher has tower3"):
        pair_stages({}, tower, "tower")
    with pytest.raises(UsageError, match="no stages to compare: the student has fpn4, the teacher has fpn5"):
        pair_stages(c4, c5)
