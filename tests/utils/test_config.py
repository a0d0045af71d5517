"""Pages and words at their edges; test_parts.py has the common cases."""

import dataclasses
import runpy
from pathlib import Path

import pytest

import objectives
from imagenet_train_cfg import cfg
from knowledge_distiller import Term
from recipe import Recipe
from utils.config import differences, override, read_page
from utils.errors import UsageError

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "imagenet_train_cfg.py", *sorted((ROOT / "configs").rglob("[!_]*.py"))]


def changed(*words):
    """What ``words`` change, by dotted key."""
    old, new = (dataclasses.asdict(config) for config in (cfg, override(cfg, list(words), "")))
    return {key: value for key, (_, value) in differences(old, new).items()}


@pytest.mark.parametrize(
    ("word", "key", "value"),
    [
        ("optim.milestones=30,60", "optim.milestones", (30, 60)),
        ("optim.milestones=(30, 60)", "optim.milestones", (30, 60)),
        ("optim.milestones=30 60", "optim.milestones", (30, 60)),
        ("optim.milestones=50", "optim.milestones", (50,)),
        ("optim.milestones=", "optim.milestones", ()),
        ("optim.init_lr=1", "optim.init_lr", 1.0),
        ("optim.init_lr=1e-3", "optim.init_lr", 1e-3),
        ("optim.init_lr=-1", "optim.init_lr", -1.0),
        ("optim.nesterov=False", "optim.nesterov", False),
        ("optim.schedule=cosine", "optim.schedule", "cosine"),
        ("student.num_classes=10", "student.num_classes", 10),
        ("student.weights=a,b (c)=[d]", "student.weights", "a,b (c)=[d]"),
        ("teachers.teacher.name=resnet50", "teachers.teacher.name", "resnet50"),
        ("terms.wsld.ramp=1,0,5,1", "terms.wsld.ramp", ((1.0, 0.0), (5.0, 1.0))),
        ("--optim.init-lr=3", "optim.init_lr", 3.0),
    ],
)
def test_a_word_changes_its_value_and_nothing_else(word, key, value):
    assert changed(word) == {key: value}
    assert type(changed(word)[key]) is type(value)


def test_lists_may_be_given_as_flags():
    assert changed("--student.mean", "0.5", "0.5", "0.5") == {"student.mean": (0.5, 0.5, 0.5)}
    assert changed("--terms.wsld.teacher", "a", "b") == {"terms.wsld.teacher": ("a", "b")}


def test_the_last_word_wins_and_the_page_stays():
    before = dataclasses.asdict(cfg)
    assert changed("optim.init_lr=1", "optim.init_lr=2", "terms.wsld.options.temperature=9") == {
        "optim.init_lr": 2.0,
        "terms.wsld.options.temperature": 9.0,
    }
    assert dataclasses.asdict(cfg) == before


@pytest.mark.parametrize(
    ("word", "named"),
    [
        ("optim.schedule=cosin", "optim.schedule"),
        ("optim.nesterov=maybe", "optim.nesterov"),
        ("optim.milestones=30,x", "optim.milestones"),
        ("train_params.epochs=3.5", "train_params.epochs"),
        ("terms.wsld.weight=heavy", "terms.wsld.weight"),
        ("student.num_classes=ten", "student.num_classes"),
        ("optim=3", "optim"),
        ("--optim.init_rl=3", "optim.init_rl"),
        ("optim.init_lr", "optim.init_lr"),
    ],
)
def test_what_cannot_be_read_names_the_field(word, named):
    with pytest.raises(UsageError, match=named):
        override(cfg, [word])


@pytest.mark.parametrize(
    ("word", "near"),
    [
        ("teachers.teecher.name=x", r"near: teachers\.teacher"),
        ("name.first=x", "no setting 'name.first'"),
        ("=3", "no setting ''"),
        ("epochs=3", r"no setting 'epochs'; near: train_params\.epochs$"),
        ("zzz=3", "no setting 'zzz'; --help shows them all"),
        ("lr=0.1", r"near: optim\.init_lr$"),
        ("bs=20", r"near: data\.batch_size$"),
        ("batchsize=20", r"near: data\.batch_size"),
        ("wd=0", r"near: optim\.weight_decay$"),
        ("--workers=4", r"near: data\.num_workers$"),
        ("teacher=mobilenet_v2", r"near: teachers\.teacher\.name, teachers\.teacher\.weights"),
        ("student=resnet19", r"near: student\.name, student\.weights$"),
        ("temperature=3", r"near: terms\.wsld\.options\.temperature$"),
        ("arch=resnet50", r"near: student\.name, teachers\.teacher\.name$"),
        ("terms.wsld.options=3", r"near: terms\.wsld\.options\.temperature"),
        ("terms=kd", r"near: terms\.cross_entropy\.objective"),
    ],
)
def test_an_unknown_key_is_refused_at_every_depth(word, near):
    with pytest.raises(UsageError, match=near):
        override(cfg, [word], "")


@pytest.mark.parametrize("page", PAGES, ids=[f"{page.parent.name}/{page.stem}" for page in PAGES])
def test_every_page_is_a_recipe_whose_terms_fit_together(page):
    recipe, _ = read_page(page, Recipe)
    for term in recipe.all_terms.values():
        entry = objectives.get(term.objective)
        assert set(term.options) <= set(entry.options)
        assert not entry.needs_teacher or set(term.teachers) <= recipe.teachers.keys()
    assert override(recipe, [], "") == recipe


def test_the_main_page_is_the_published_recipe():
    # Zhou et al., ICLR 2021: ResNet-34 to ResNet-18, cross-entropy + 2.5 wsld at T = 2, SGD, 100 epochs.
    assert (cfg.student.name, cfg.teachers["teacher"].name) == ("resnet18", "resnet34")
    assert cfg.terms == {
        "cross_entropy": Term("cross_entropy"),
        "wsld": Term("wsld", weight=2.5, options={"temperature": 2.0}),
    }
    assert (cfg.optim.init_lr, cfg.optim.milestones, cfg.optim.lr_decay) == (0.1, (30, 60, 90), 0.1)
    assert (cfg.optim.momentum, cfg.optim.weight_decay) == (0.9, 1e-4)
    assert (cfg.train_params.epochs, cfg.data.batch_size) == (100, 256)


def test_a_page_is_read_afresh_and_its_own_errors_come_through(tmp_path):
    page = tmp_path / "page.py"
    page.write_text("from imagenet_train_cfg import cfg\n")
    assert read_page(page, Recipe) == (cfg, [])
    page.write_text("other = 3\n")
    with pytest.raises(UsageError, match=r"page\.py must set `cfg` to a Recipe"):
        read_page(page, Recipe)
    page.write_text("import imagenet_train_cfg\ncfg = 1 / 0\n")
    with pytest.raises(UsageError, match=r"page\.py, line 2: ZeroDivisionError: division by zero$"):
        read_page(page, Recipe)
    with pytest.raises(UsageError, match=r"a folder; name one of its pages: page\.py"):
        read_page(tmp_path, Recipe)
    with pytest.raises(UsageError, match=r"pages\.py: no such file; near: .*page\.py"):
        read_page(tmp_path / "pages.py", Recipe)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("data.num_workers=-1", "at least 0"),
        ("data.input_size=0", "at least 1"),
        ("optim.init_lr=-1.0", "at least 0"),
        ("optim.momentum=2.0", "at least 0 and below 1"),
        ("name=../x", "expected a folder below"),
        ("first.boundaries.optim.init_lr=-1.0", "at least 0"),
        ("first.boundaries.epochs=0", "at least 1"),
    ],
)
def test_numbers_out_of_range_are_refused(word, message):
    page, _ = read_page(ROOT / "configs" / "cifar100" / "ab.py", Recipe)
    with pytest.raises(UsageError, match=rf"^{word}: {message}"):
        override(page, [word], "").check()


def test_lists_may_be_written_as_python_or_a_shell_would():
    for text in ("30,60", "(30, 60)", "[30 60]", "'30', '60'"):
        assert override(cfg, [f"optim.milestones={text}"], "").optim.milestones == (30, 60)


def test_differences_of_equal_and_of_unlike_things():
    assert differences({"a": {"b": (1, 2)}}, {"a": {"b": (1, 2)}}) == {}
    assert differences({"a": {"b": 1}}, {"a": 1}) == {"a": ({"b": 1}, 1)}
    assert differences({"a": 1}, {}) == {"a": (1, None)}


def test_a_page_may_be_a_function_of_words(capsys):
    page = ROOT / "configs" / "cifar100" / "dkd.py"
    recipe, rest = read_page(page, Recipe, ["teacher=vgg13", "optim.init_lr=0.1", "student=vgg8"])
    assert rest == ["optim.init_lr=0.1"]
    assert (recipe.student.name, recipe.teachers["teacher"].name) == ("cifar_vgg8", "cifar_vgg13")
    assert recipe.terms["dkd"].options["beta"] == 6.0
    assert recipe.teachers["teacher"].weights == "runs/cifar100_vgg13/student.safetensors"
    assert read_page(page, Recipe, ["student=mobilenetv2"])[0].optim.init_lr == 0.01
    read_page(page, Recipe, ["--help"])
    assert "dkd.py: teacher=resnet32x4 student=resnet8x4" in capsys.readouterr().out
    with pytest.raises(UsageError, match=r"dkd\.py has no word 'tearcher'; its words: teacher, student"):
        read_page(page, Recipe, ["tearcher=vgg13"])
    with pytest.raises(
        UsageError, match=r"no word 'epochs'; its words: teacher, student; settings: train_params\.epochs"
    ):
        read_page(page, Recipe, ["epochs=3"])
    assert (
        read_page(ROOT / "configs" / "cifar100" / "teacher.py", Recipe, ["student=vgg13"])[0].name == "cifar100_vgg13"
    )


@pytest.mark.parametrize("folder", ["cifar100", "imagenet"])
def test_published_scores_name_pairs(folder):
    pairs = runpy.run_path(str(ROOT / "configs" / folder / "_common.py"))["PAIRS"]
    for page in sorted((ROOT / "configs" / folder).glob("[!_]*.py")):
        published = runpy.run_path(str(page)).get("published", {})
        assert set(published) <= set(pairs), page.name
        assert all(50 < score < 90 for score in published.values())
