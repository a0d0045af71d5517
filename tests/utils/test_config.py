"""Configs and overrides at their edges; test_parts.py has the common cases."""

import dataclasses
import os
from pathlib import Path

import pytest

import objectives
import tasks
from configs._pieces import PAIRS
from configs.methods import METHODS
from imagenet_train_cfg import cfg
from knowledge_distiller import Term
from procedure import OLD, read_command_line
from recipe import Recipe
from utils.config import differences, override, read_config
from utils.errors import UsageError

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = [(ROOT / "imagenet_train_cfg.py", []), (ROOT / "configs/imagenet_patient.py", [])]
CONFIGS += [(ROOT / "configs/imagenette_wsld.py", [])]
CONFIGS += [(ROOT / "configs/digits.py", [f"method={method}"]) for method in ("teacher", "student", "wsld")]
CONFIGS += [(ROOT / f"configs/{data}.py", [f"method={name}"]) for name, one in METHODS.items() for data in one.on]


def changed(*words):
    """What ``words`` change, by dotted key."""
    old, new = (dataclasses.asdict(config) for config in (cfg, override(cfg, list(words), "")))
    return {key.removeprefix("phases.distillation."): value for key, (_, value) in differences(old, new).items()}


@pytest.mark.parametrize(
    ("typed", "key", "value"),
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
        ("phases.distillation.optim.init_lr=3", "optim.init_lr", 3.0),
        ("epochs=3", "epochs", 3),
        ("trainable=student.fc", "trainable", ("student.fc",)),
    ],
)
def test_an_override_changes_its_value_and_nothing_else(typed, key, value):
    assert changed(typed) == {key: value}
    assert type(changed(typed)[key]) is type(value)


def test_lists_may_be_given_as_flags():
    assert changed("--student.mean", "0.5", "0.5", "0.5") == {"student.mean": (0.5, 0.5, 0.5)}
    assert changed("--terms.wsld.teacher", "a", "b") == {"terms.wsld.teacher": ("a", "b")}


def test_the_last_override_wins_and_the_config_stays():
    before = dataclasses.asdict(cfg)
    assert changed("optim.init_lr=1", "optim.init_lr=2", "terms.wsld.options.temperature=9") == {
        "optim.init_lr": 2.0,
        "terms.wsld.options.temperature": 9.0,
    }
    assert dataclasses.asdict(cfg) == before


@pytest.mark.parametrize(
    ("typed", "named"),
    [
        ("optim.schedule=cosin", "optim.schedule"),
        ("optim.nesterov=maybe", "optim.nesterov"),
        ("optim.milestones=30,x", "optim.milestones"),
        ("epochs=3.5", "epochs"),
        ("terms.wsld.weight=heavy", "terms.wsld.weight"),
        ("student.num_classes=ten", "student.num_classes"),
        ("optim=3", "optim"),
        ("--optim.init_rl=3", "optim.init_rl"),
        ("optim.init_lr", "optim.init_lr"),
    ],
)
def test_what_cannot_be_read_names_the_field(typed, named):
    with pytest.raises(UsageError, match=named):
        override(cfg, [typed])


@pytest.mark.parametrize(
    ("typed", "near"),
    [
        ("teachers.teecher.name=x", r"near: teachers\.teacher"),
        ("name.first=x", "no setting 'name.first'"),
        ("=3", "no setting ''"),
        ("num_epochs=3", r"no setting 'num_epochs'; near: epochs$"),
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
def test_an_unknown_key_is_refused_at_every_depth(typed, near):
    with pytest.raises(UsageError, match=near):
        override(cfg, [typed], "")


@pytest.mark.parametrize(("file", "words"), CONFIGS, ids=[f"{file.stem} {''.join(words)}" for file, words in CONFIGS])
def test_every_config_is_a_recipe_whose_terms_fit_together(file, words):
    recipe, _ = read_config(file, Recipe, words)
    recipe.check_terms()
    for term in recipe.all_terms.values():
        entry = objectives.get(term.objective)
        assert set(term.options) <= set(entry.options)
        assert not entry.needs_teacher or set(term.teachers) <= recipe.teachers.keys()
    assert override(recipe, [], "") == recipe


def test_the_main_config_is_the_published_recipe():
    # Zhou et al., ICLR 2021: ResNet-34 to ResNet-18, cross-entropy + 2.5 wsld at T = 2, SGD, 100 epochs.
    assert (cfg.student.name, cfg.teachers["teacher"].name) == ("resnet18", "resnet34")
    assert cfg.last.terms == {
        "cross_entropy": Term("cross_entropy"),
        "wsld": Term("wsld", weight=2.5, options={"temperature": 2.0}),
    }
    assert (cfg.last.optim.init_lr, cfg.last.optim.milestones, cfg.last.optim.lr_decay) == (0.1, (30, 60, 90), 0.1)
    assert (cfg.last.optim.momentum, cfg.last.optim.weight_decay) == (0.9, 1e-4)
    assert (cfg.last.epochs, cfg.data.batch_size) == (100, 256)


def test_a_config_is_read_afresh_and_its_own_errors_come_through(tmp_path):
    config = tmp_path / "config.py"
    config.write_text("from imagenet_train_cfg import cfg\n")
    assert read_config(config, Recipe) == (cfg, [])
    config.write_text("other = 3\n")
    with pytest.raises(UsageError, match=r"config\.py must set `cfg` to a Recipe"):
        read_config(config, Recipe)
    config.write_text("import imagenet_train_cfg\ncfg = 1 / 0\n")
    with pytest.raises(UsageError, match=r"config\.py, line 2: ZeroDivisionError: division by zero$"):
        read_config(config, Recipe)
    with pytest.raises(UsageError, match=r"a folder; name one of its configs: config\.py"):
        read_config(tmp_path, Recipe)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="a folder; name one of its configs: it has none"):
        read_config(tmp_path / "empty", Recipe)
    os.mkfifo(tmp_path / "pipe.py")
    with pytest.raises(UsageError, match=r"pipe\.py: a pipe or device; write the config into a file"):
        read_config(tmp_path / "pipe.py", Recipe)
    (tmp_path / "pipe.py").unlink()
    (tmp_path / "link.py").symlink_to("link.py")
    with pytest.raises(UsageError, match=r"link\.py: a link to link\.py, where no file can be read"):
        read_config(tmp_path / "link.py", Recipe)
    with pytest.raises(UsageError, match=r"configs\.py: no such file; near: .*config\.py"):
        read_config(tmp_path / "configs.py", Recipe)


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("data.num_workers=-1", "at least 0"),
        ("data.input_size=0", "at least 1"),
        ("optim.init_lr=-1.0", "at least 0"),
        ("optim.momentum=2.0", "at least 0 and below 1"),
        ("epochs=0", "at least 1"),
        ("name=../x", "expected a folder below"),
        ("phases.boundaries.optim.init_lr=-1.0", "at least 0"),
        ("phases.boundaries.epochs=0", "at least 1"),
    ],
)
def test_numbers_out_of_range_are_refused(typed, message):
    config, _ = read_config(ROOT / "configs/cifar100.py", Recipe, ["method=ab"])
    with pytest.raises(UsageError, match=rf"^{typed}: {message}"):
        override(config, [typed], "").check()


def test_lists_may_be_written_as_python_or_a_shell_would():
    for text in ("30,60", "(30, 60)", "[30 60]", "'30', '60'"):
        assert override(cfg, [f"optim.milestones={text}"], "").last.optim.milestones == (30, 60)


def test_differences_of_equal_and_of_unlike_things():
    assert differences({"a": {"b": (1, 2)}}, {"a": {"b": (1, 2)}}) == {}
    assert differences({"a": {"b": 1}}, {"a": 1}) == {"a": ({"b": 1}, 1)}
    assert differences({"a": 1}, {}) == {"a": (1, None)}


def test_a_config_may_be_a_function_of_overrides(capsys):
    file = ROOT / "configs/cifar100.py"
    recipe, rest = read_config(file, Recipe, ["method=dkd", "teacher=vgg13", "optim.init_lr=0.1", "student=vgg8"])
    assert rest == ["optim.init_lr=0.1"]
    assert recipe.name == "cifar100_vgg8_dkd_vgg13"
    assert (recipe.student.name, recipe.teachers["teacher"].name) == ("cifar_vgg8", "cifar_vgg13")
    assert recipe.last.terms["dkd"].options["beta"] == 6.0
    assert recipe.teachers["teacher"].weights == "runs/cifar100_vgg13/student.safetensors"
    assert read_config(file, Recipe, ["student=mobilenetv2"])[0].last.optim.init_lr == 0.01
    read_config(file, Recipe, ["--help"])
    assert "cifar100.py: method=kd teacher= student=resnet8x4" in capsys.readouterr().out
    with pytest.raises(UsageError, match=r"no setting 'tearcher'; its own: method, teacher, student, second"):
        read_config(file, Recipe, ["tearcher=vgg13"])
    with pytest.raises(UsageError, match=r"no setting 'lr'; its own: .*; settings: optim\.init_lr$"):
        read_config(file, Recipe, ["lr=3"])
    assert read_config(file, Recipe, ["epochs=3"])[1] == ["epochs=3"]
    alone, _ = read_config(file, Recipe, ["method=none", "student=vgg13"])
    assert (alone.name, list(alone.phases), alone.teachers) == ("cifar100_vgg13", ["training"], {})


@pytest.mark.parametrize(
    ("data", "words", "message"),
    [
        ("imagenet", ["method=dkdd"], "method=dkdd: this config does not know it; near: dkd"),
        ("imagenet", ["method=zzz"], "method=zzz: this config does not know it; it has none, ab"),
        ("imagenet", ["teacher=resnet43"], "teacher=resnet43: this config does not know it; near: resnet34"),
        ("cifar100", ["student=resnet8x5"], "student=resnet8x5: this config does not know it; near: resnet8x4"),
        ("cifar100", ["method=none", "teacher=vgg13"], "teacher=vgg13: method=none has no such teacher"),
        ("cifar100", ["second=vgg13"], "second=vgg13: method=kd has no such teacher"),
        ("digits", ["method=wlsd"], "method=wlsd: this config does not know it; near: wsld"),
    ],
)
def test_overrides_that_a_config_does_not_know_bring_near_ones(data, words, message):
    with pytest.raises(UsageError, match=message):
        read_config(ROOT / f"configs/{data}.py", Recipe, words)


def test_published_scores_name_pairs_and_their_source():
    for name, method in METHODS.items():
        for data, setup in method.on.items():
            students = {student for _, student in PAIRS[data]} | {teacher for teacher, _ in PAIRS[data]}
            for (teacher, student), score in setup.published.scores.items():
                assert (teacher, student) in PAIRS[data] or (teacher == "none" and student in students), name
                assert 50 < score < 90
            assert bool(setup.published.by) == bool(setup.published.scores), name


@pytest.mark.parametrize(
    ("words", "there", "not_there"),
    [
        ([], ("wttm_crd", "imagenet: resnet34/resnet18 71.70, resnet50/timm/mobilenetv1_100 72.05"), ()),
        (["--cfg", "configs/imagenet.py"], ("dkd", "Zhao et al., CVPR 2022"), ("kd_ensemble", "cifar100:")),
        (["--cfg", "configs/cifar100.py"], ("wttm_crd", "resnet32x4/resnet8x4 76.32"), ("imagenet:",)),
    ],
)
def test_methods_are_listed_with_papers_and_scores(monkeypatch, capsys, words, there, not_there):
    monkeypatch.setattr("sys.argv", ["door", "--methods", *words])
    with pytest.raises(SystemExit) as stopped:
        read_command_line("")
    shown = capsys.readouterr().out
    assert not stopped.value.code
    assert all(text in shown for text in there)
    assert not any(text in shown for text in not_there)
    assert max(map(len, shown.splitlines())) <= 120


METHOD = """
from configs.imagenet import recipe
from configs._method import Setup
from knowledge_distiller import Term

def cfg(teacher: str = "", student: str = "resnet18"):
    return recipe("toy", Setup({"toy": Term("kd", 3.0)}, batch_size=512), teacher, student)
"""


def test_a_method_of_ones_own_is_one_entry_in_one_file(tmp_path):
    (tmp_path / "toy.py").write_text(METHOD)
    toy, _ = read_config(tmp_path / "toy.py", Recipe, ["student=resnet50"])
    toy.check()
    assert toy.name == "imagenet_resnet50_toy_resnet34"
    assert toy.last.terms == {"cross_entropy": Term("cross_entropy"), "toy": Term("kd", 3.0)}
    assert (toy.data.batch_size, toy.last.optim.init_lr) == (512, 0.2)


def test_a_method_with_a_task_of_its_own_has_the_hard_loss_of_that(tmp_path):
    (tmp_path / "toy.py").write_text(METHOD.replace("batch_size=512", 'task="multi_label"'))
    toy, _ = read_config(tmp_path / "toy.py", Recipe, [])
    assert toy.task == "multi_label"
    assert [*toy.last.terms] == [tasks.get("multi_label").hard_loss, "toy"] != ["cross_entropy", "toy"]


@pytest.mark.parametrize(
    ("old", "now", "value"),
    [
        ("train_params.epochs=7", "epochs=7", lambda cfg: cfg.last.epochs == 7),
        ("optim.moves=student.fc", "trainable=student.fc", lambda cfg: cfg.last.trainable == ("student.fc",)),
        (
            "phases.distillation.optim.moves=student.fc",
            "trainable=student.fc",
            lambda cfg: cfg.last.trainable == ("student.fc",),
        ),
        ("first.hint.epochs=7", "phases.hint.epochs=7", lambda cfg: cfg.phases["hint"].epochs == 7),
        (
            "first.hint.optim.moves=student.fc",
            "phases.hint.trainable=student.fc",
            lambda cfg: cfg.phases["hint"].trainable == ("student.fc",),
        ),
    ],
)
def test_old_names_are_taken_with_a_note(old, now, value):
    phased, _ = read_config(ROOT / "configs/imagenet.py", Recipe, ["method=fitnet_hint"])
    notes = []
    changed = override(phased, [old], old=OLD, note=notes.append)
    assert value(changed)
    assert notes == [f"{old} is now {now}"]
    assert override(phased, [now], old=OLD, note=notes.append) == changed
    assert len(notes) == 1
    with pytest.raises(UsageError, match="no setting"):
        override(phased, [old])


def test_an_old_name_may_say_that_there_is_nothing():
    simkd, _ = read_config(ROOT / "configs/imagenet.py", Recipe, ["method=simkd"])
    notes = []
    assert override(simkd, ["student.reuses=none"], old=OLD, note=notes.append).student.head.name == "own"
    assert override(simkd, ["student.batch_statistics=no"], old=OLD, note=notes.append) == simkd
    assert notes == [
        "student.reuses=none is now student.head.name=own",
        "student.batch_statistics=no has no effect now",
    ]


def test_old_names_may_have_hyphens():
    words = ["--train-params.epochs", "7", "--teachers.teacher.expect-top1=3"]
    changed = override(cfg, words, old=OLD)
    assert (changed.last.epochs, changed.teachers["teacher"].expect) == (7, 3)


def test_old_names_with_wrong_values_are_refused_like_others():
    with pytest.raises(UsageError, match=r"^student\.embedding=x: expected a whole number or none$"):
        override(cfg, ["student.embedding=x"], old=OLD)
    with pytest.raises(UsageError, match=r"^terms\.wsld\.strong=: expected true or false$"):
        override(cfg, ["terms.wsld.strong="], old=OLD)
    with pytest.raises(UsageError, match=r"^train_params\.epochs=x: expected a whole number"):
        override(cfg, ["train_params.epochs=x"], old=OLD)
    with pytest.raises(UsageError, match=r"no setting 'first\.hint\.epochs'"):
        override(cfg, ["first.hint.epochs=1"], old=OLD)
    with pytest.raises(UsageError, match=r"no setting 'terms\.wsl\.weight'; near: terms\.wsld\.weight"):
        override(cfg, ["terms.wsl.weight=1"], old=OLD)


@pytest.mark.parametrize(
    ("file", "now"),
    [
        ("configs/imagenet/dkd.py", r"configs/imagenet\.py method=dkd$"),
        ("configs/cifar100/teacher.py", r"configs/cifar100\.py method=none$"),
        ("configs/digits_wsld.py", r"configs/digits\.py method=wsld$"),
        ("configs/imagenet_plain.py", r"configs/imagenet\.py method=none$"),
        ("configs/imagenet_resnet50_mobilenetv1.py", "student.name=timm/mobilenetv1_100"),
    ],
)
def test_configs_that_are_gone_name_what_to_give(file, now):
    with pytest.raises(UsageError, match=f"no such file now; it is --cfg .*{now}"):
        read_config(ROOT / file, Recipe, old=OLD)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("from recipe import Recipe\nRecipe(name='x', terms={})", "line 2: Recipe has no setting 'terms' now; write"),
        ("from imagenet_train_cfg import cfg\ncfg.optim", "line 2: Recipe has no setting 'optim' now; write phases="),
        (
            "from training.loop import TrainConfig as C\nC(epochs=3)",
            "no setting 'epochs' now; write phases=",
        ),
        (
            "from training.optimizer import OptimConfig as C\nC(moves=())",
            "no setting 'moves' now; trainable of",
        ),
        ("from training.stages import Stage", "no module training.stages now; it is training/phases.py, whose Phase"),
        (
            "from configs.imagenet.dkd import cfg",
            "no module .*dkd now; it is configs/imagenet.py method=dkd",
        ),
    ],
)
def test_an_old_config_is_refused_with_what_to_write(tmp_path, code, message):
    (tmp_path / "old.py").write_text(f"{code}\n")
    with pytest.raises(UsageError, match=message):
        read_config(tmp_path / "old.py", Recipe, old=OLD)
