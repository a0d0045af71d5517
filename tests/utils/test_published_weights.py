"""Methods with the weights of their authors' files, where these are not what another method's would suggest."""

from pathlib import Path

import pytest

from configs import coco_detection
from configs._lshfm import lshfm
from configs._pieces import falling
from configs.methods import METHODS
from knowledge_distiller import Term
from recipe import Recipe
from utils.config import read_config

ROOT = Path(__file__).resolve().parents[2]
STANDARDIZED = Term("kd", 9.0, options={"temperature": 2.0}, standardize=True)
SRD = {
    "cross_entropy": Term("cross_entropy"),
    "srd": Term("srd", 2.0),
    "kd": Term("kd", options={"temperature": 1.0}),
}


def made(data, method, *words):
    recipe, _ = read_config(ROOT / f"configs/{data}.py", Recipe, [f"method={method}", *words])
    return recipe


@pytest.mark.parametrize(
    ("data", "method", "terms"),
    [
        ("imagenet", "kd_standardized", {"cross_entropy": Term("cross_entropy", 0.5), "kd": STANDARDIZED}),
        ("cifar100", "kd_standardized", {"cross_entropy": Term("cross_entropy", 0.1), "kd": STANDARDIZED}),
        (
            "imagenet",
            "ctkd",
            {"cross_entropy": Term("cross_entropy"), "ctkd": Term("ctkd", options={"loops": 5.0})},
        ),
        ("imagenet", "srd", SRD),
        ("cifar100", "srd", SRD),
    ],
)
def test_weights(data, method, terms):
    assert made(data, method).last.terms == terms


@pytest.mark.parametrize(
    ("data", "pair", "term"),
    [
        (
            "imagenet",
            "resnet34 resnet18",
            Term("catkd", 0.5, options={"resolution": 4, "normalize": False}),
        ),
        ("imagenet", "resnet50 timm/mobilenetv1_100", Term("catkd", 10.0, options={"resolution": 2})),
        ("imagenet", "resnet34 resnet18", Term("sdd", 0.9, options={"scales": 2, "temperature": 4.0})),
        (
            "imagenet",
            "resnet50 timm/mobilenetv1_100",
            Term("reviewkd_pre", 8.0, options={"channels": 256}),
        ),
        ("cifar100", "vgg13 vgg8", Term("catkd", 4.5, options={"resolution": 2, "normalize": False})),
        ("cifar100", "wrn_40_2 shufflenetv1", Term("catkd", 80.0, options={"resolution": 4})),
        ("cifar100", "resnet56 resnet20", Term("reviewkd", 0.6, ramp=((1, 0.0), (21, 1.0)))),
        ("cifar100", "resnet32x4 resnet8x4", Term("sdd", 0.9, options={"scales": 2, "temperature": 4.0})),
        ("cifar100", "resnet32x4 shufflenetv2", Term("sdd", 0.9, options={"scales": 3, "temperature": 4.0})),
        ("cifar100", "resnet32x4 resnet8x4", Term("nkd", options={"gamma": 3.5, "temperature": 3.0})),
    ],
)
def test_weight_of_a_pair(data, pair, term):
    method = term.objective.removesuffix("_pre")
    teacher, student = pair.split()
    terms = made(data, method, f"teacher={teacher}", f"student={student}").last.terms
    assert terms[method] == term
    assert terms["cross_entropy"].weight == (0.1 if method == "sdd" else 1.0)


@pytest.mark.parametrize(
    ("data", "method", "pair", "batch", "rate"),
    [
        ("imagenet", "catkd", "resnet34 resnet18", 512, 0.2),
        ("imagenet", "mlkd", "resnet34 resnet18", 512, 0.1),
        ("imagenet", "mlkd", "resnet50 timm/mobilenetv1_100", 512, 0.2),
        ("cifar100", "mlkd_released", "resnet56 resnet20", 64, 0.025),
        ("cifar100", "mlkd_released", "resnet32x4 shufflenetv1", 64, 0.01),
        ("cifar100", "mlkd_released", "wrn_40_2 shufflenetv1", 64, 0.0025),
        ("cifar100", "mlkd_standardized", "vgg13 mobilenetv2", 64, 0.01),
        ("cifar100", "mlkd_standardized", "resnet32x4 shufflenetv2", 64, 0.001),
        ("cifar100", "reviewkd", "resnet32x4 resnet8x4", 128, 0.1),
        ("cifar100", "reviewkd", "resnet32x4 shufflenetv1", 128, 0.02),
    ],
)
def test_rate_of_a_pair(data, method, pair, batch, rate):
    teacher, student = pair.split()
    recipe = made(data, method, f"teacher={teacher}", f"student={student}")
    assert (recipe.data.batch_size, recipe.last.optim.init_lr) == (batch, pytest.approx(rate))
    assert recipe.last.optim.nesterov == (method == "reviewkd")


def test_factor_transfer_on_imagenet_is_as_long_as_torchdistills():
    assert made("imagenet", "ft").last.epochs == 90


@pytest.mark.parametrize(("data", "student"), [("imagenet", "resnet18"), ("cifar100", "resnet8x4")])
def test_features_of_the_same_dimensions_are_mimicked_as_they_are(data, student):
    assert made(data, "lshfm", f"student={student}").student.head.name == "own"
    (others,) = made("cifar100", "lshfm", "student=shufflenetv1").student.head.options.values()
    assert others == 256


@pytest.mark.parametrize(
    ("data", "pair", "phases"),
    [
        ("voc", ("resnet18", "resnet34"), ["alignment", "distillation"]),
        ("voc", ("resnet50", "resnet101"), ["distillation"]),
        ("coco", ("resnet50", "resnet101"), ["alignment", "distillation"]),
        ("coco", ("resnet50_gmp", "resnet101_gmp"), ["distillation"]),
        ("coco", ("mobilenet_v2", "resnet101"), ["alignment", "distillation"]),
    ],
)
def test_who_learns_an_embedding_first(data, pair, phases):
    recipe = lshfm(data, *pair, "lshl2", "none")["distillation"]
    assert list(recipe.phases) == phases
    assert bool(recipe.student.head.options["dimensions"]) == (len(phases) > 1)
    if len(phases) > 1:
        assert recipe.phases["alignment"].terms["align"].weight == 1.0


def test_students_by_kd_begin_with_an_embedding_that_learned_distances():
    phases = lshfm("voc", "mobilenet_v2", "resnet101", "kd", "none")["distillation"].phases
    assert phases["alignment"].terms["align"].options["hash_distance"] == "none"


@pytest.mark.parametrize(("student", "epochs"), [("resnet101", 60), ("resnet101_gmp", 30), ("resnet50_gmp", 60)])
def test_networks_of_coco_alone(student, epochs):
    assert lshfm("coco", student, "resnet101", "none", "none")["training"].last.epochs == epochs


def detected(**words):
    """Terms of a student of a ResNet-101 on COCO."""
    runs = coco_detection.cfg(**{"student": "resnet50", "teacher": "resnet101", **words})
    return runs["distillation"].last.terms


def test_attention_of_fgd_for_retinanet_weighs_half_of_the_papers():
    assert detected(method="fgd", detector="retinanet")["fgd"].options == {"attention": 5e-4}


@pytest.mark.parametrize(
    ("words", "weight", "levels"),
    [
        ({}, 6.0, "22 33 44 55"),
        ({"detector": "retinanet"}, 10.0, "33 44 55 66"),
        ({"detector": "retinanet", "teacher": "fasterrcnn_resnet101_fpn"}, 6.0, "32 43 54 65"),
    ],
)
def test_the_first_levels_of_pkd(words, weight, levels):
    term = detected(method="pkd", **words)["pkd"]
    assert (term.weight, term.stages) == (
        weight,
        tuple((f"fpn{ours}", f"fpn{theirs}") for ours, theirs in levels.split()),
    )


@pytest.mark.parametrize("data", ["imagenet", "cifar100"])
def test_standardized_levels_weigh_as_much_as_standardized_kd(data):
    terms = made(data, "mlkd_standardized").last.terms
    assert [terms[name].weight for name in ("mlkd", "strong_mlkd")] == [9.0, 9.0]


def test_curriculum_on_imagenet_is_as_long_as_the_authors():
    recipe = made("imagenet", "ctkd")
    assert (recipe.last.epochs, recipe.data.batch_size, recipe.last.optim.init_lr) == (120, 256, 0.1)


def test_the_rate_of_local_relations_grows_first():
    assert made("cifar100", "ldrld").last.optim.warmup_epochs == 20


def test_both_distances_of_wkd_fall_from_the_first_epoch():
    terms = made("imagenet", "wkd", "teacher=resnet50", "student=timm/mobilenetv1_100").last.terms
    assert (terms["wkd_f"].weight, terms["wkd_l"].weight) == (0.005, 25.0)
    assert terms["wkd_f"].ramp == terms["wkd_l"].ramp == falling(0, 100)


@pytest.mark.parametrize(
    ("method", "pair", "score"),
    [
        ("at", ("wrn_40_2", "shufflenetv1"), 73.32),
        ("crd", ("vgg13", "vgg8"), 73.94),
        ("cc", ("resnet50", "mobilenetv2"), 65.43),
        ("ickd", ("resnet110", "resnet32"), 73.89),
        ("dist", ("resnet32x4", "shufflenetv2"), 77.35),
        ("none", ("none", "vgg8"), 70.36),
    ],
)
def test_scores_by_pair(method, pair, score):
    assert METHODS[method].on["cifar100"].published.scores[pair] == score
