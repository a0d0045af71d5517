"""Laws of settings: ranges, and what the command line takes."""

import dataclasses
import json
import math
import sys
from pathlib import Path
from typing import Literal, get_args, get_origin

import pytest

import procedure as recipe_module
from configs.methods import METHODS
from dataset.loader import DataConfig
from imagenet_train_cfg import cfg
from knowledge_distiller import Term
from models.zoo import NetworkConfig
from old_names import as_today
from procedure import Procedure, read_command_line
from recipe import Recipe
from students import Students
from teachers import TeacherConfig
from training.loop import TrainConfig
from training.optimizer import OptimConfig
from training.phases import Phase
from utils.config import override, read_config, restore, restore_file
from utils.errors import DataError, UsageError
from utils.settings import hints, in_words, parse, range_of, settings, show, texts

SECTIONS = (DataConfig, TrainConfig, OptimConfig, NetworkConfig, Term, Phase)
ROOT = recipe_module._CONFIG.parent
CONFIGS = [(recipe_module._CONFIG, ""), (ROOT / "configs/imagenet_patient.py", "")]
CONFIGS += [(ROOT / "configs/imagenette_wsld.py", ""), (ROOT / "configs/digits.py", "method=wsld")]
CONFIGS += [(ROOT / f"configs/{data}.py", f"method={name}") for name, one in METHODS.items() for data in one.on]


@pytest.fixture(scope="module", params=CONFIGS, ids=[f"{file.stem} {typed}" for file, typed in CONFIGS])
def config(request):
    file, typed = request.param
    return read_config(file, Recipe, [typed] if typed else [])[0]


def of_two_phases():
    """A config with two phases, a ramp and everything else."""
    words = [
        "terms.cross_entropy.ramp=1,0,5,1",
        "optim.grad_clip=1",
        "train_params.ema_decay=0.9",
        "student.mean=0,0,0",
    ]
    plain, _ = read_config(ROOT / "configs/cifar100.py", Recipe, ["method=ab"])
    made = override(plain, [*words, "student.std=1,1,1"])
    return dataclasses.replace(made, teachers={"teacher": TeacherConfig("cifar_resnet8", num_classes=9, expect=3)})


def holds_numbers(kind):
    if get_origin(kind) is dict:
        return False  # options of objectives, which check them
    return kind in (int, float) or any(map(holds_numbers, get_args(kind)))


def test_every_number_has_its_range_and_every_setting_its_text():
    for section in SECTIONS:
        for field in dataclasses.fields(section):
            kind = hints(section)[field.name]
            assert not holds_numbers(kind) or range_of(field).limits, f"{section.__name__}.{field.name}"
            assert field.name in texts(section), f"{section.__name__}.{field.name}"


def with_number(one, number):
    """A setting with ``number`` in the place of its first number."""

    def put(value):
        return (put(value[0]), *value[1:]) if isinstance(value, tuple) else number

    return dataclasses.replace(one, value=put(one.value))


def limited():
    """Settings with a range and a value; with two or more numbers the first is the least."""
    return [one for one in settings(of_two_phases()) if range_of(one.field).limits and one.value not in (None, ())]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, "x", True], ids=str)
def test_no_setting_takes_what_is_no_number(bad):
    for one in limited():
        with pytest.raises(UsageError, match=rf"^{one.key}="):
            with_number(one, bad).check()


def test_a_number_at_its_limit_is_taken_and_one_beyond_is_not():
    words = {"least": "at least", "above": "above", "most": "at most", "below": "below"}
    for one in limited():
        for name, limit in range_of(one.field).limits.items():
            step = (1 if int in (one.kind, *get_args(one.kind)) else 1e-9 * max(1, limit)) * (
                1 if name in ("most", "below") else -1
            )
            included = name in ("least", "most")
            with pytest.raises(UsageError, match=rf"^{one.key}=.*{words[name]} {limit}"):
                with_number(one, limit + step if included else limit).check()
            if not (one.field.metadata["rising"] and name in ("most", "below")):
                with_number(one, limit if included else limit - step).check()


@pytest.mark.parametrize(
    "typed",
    [
        *("data.scale=1,0.08", "data.scale=0,1", "data.ratio=0,1", "data.ratio=2,1", "data.rand_scale=480,256"),
        *("data.rand_scale=0,0", "data.pad=-40", "data.mixup=-1", "data.cutmix=-1e-9", "data.color_jitter=-1"),
        *("data.open_shards=0", "data.cache_gb=0", "data.worker_timeout=0"),
        *(
            "train_params.ema_decay=1",
            "train_params.ema_decay=2",
            "train_params.seed=-1",
            "train_params.seed=2147483648",
        ),
        *("train_params.print_freq=0", "train_params.timeout_minutes=0", "train_params.timeout_minutes=1e12"),
        *(
            "optim.grad_clip=0",
            "optim.grad_clip=-1",
            "optim.milestones=60,30",
            "optim.milestones=0",
            "optim.lr_decay=0",
        ),
        *("optim.warmup_epochs=-1", "optim.betas=0.9,1", "optim.eps=0", "optim.delta=-1", "student.std=0,0,0"),
        *("student.mean=127,127,127", "student.num_classes=0", "terms.wsld.weight=-1", "terms.wsld.ramp=5,1,1,0"),
        *(
            "terms.wsld.ramp=1,-1",
            "name=",
            "name=.",
            "name=a/",
            "name=a//b",
            "name=/a",
            "name=a/../b",
            "name= a",
            "name=\n",
        ),
    ],
)
def test_what_is_out_of_range_is_refused_by_its_key(typed):
    with pytest.raises(UsageError, match=rf"^{typed.partition('=')[0]}="):
        override(cfg, [typed]).check()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["data.type_of_data_aug=rand_scale", "data.rand_scale=128,480"],
            "data.rand_scale=128,480: at least data.input",
        ),
        (["data.strong_view=true", "data.mixup=1"], "set data.mixup=0"),
        (["optim.schedule=cosine", "optim.min_lr=1"], "optim.min_lr=1.0: at most optim.init_lr=0.1"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(words, message):
    with pytest.raises(UsageError, match=message):
        override(cfg, words).check()


@pytest.mark.parametrize("name", ["student", "a.b", "", "train", "forward"])
def test_names_that_mean_something_are_refused(name):
    with pytest.raises(UsageError, match="give it another name"):
        dataclasses.replace(cfg, teachers={name: NetworkConfig("resnet18")}).check()


@pytest.mark.parametrize(
    "change",
    [
        {"data": None},
        {"phases": {"distillation": Phase(1, {"kd": "kd"})}},
        {"phases": {"distillation": "kd"}},
        {"teachers": {"teacher": "resnet18"}},
        {"phases": {"distillation": Phase(1, {}, OptimConfig(milestones=30))}},
        {"phases": {"distillation": Phase(1, {}, OptimConfig(init_lr="0.1"))}},
        {"phases": {"distillation": Phase(True, {})}},
        {"data": DataConfig("x", scale=(0.1, 0.5, 1.0))},
        {"name": 3},
        {"phases": {1: cfg.last}},
        {"phases": [cfg.last]},
        {"phases": {"distillation": Phase(1, {1: cfg.last.terms["wsld"]})}},
        {"student": "resnet18"},
        {"student": NetworkConfig("resnet18", weights=None)},
        {"student": NetworkConfig("resnet18", weights=Path("student.pth"))},
        {"train_params": None},
    ],
)
def test_a_config_with_values_of_other_types_is_refused(change):
    """Also where it is a run of a procedure, which looks for names and weights first."""
    wrong = dataclasses.replace(cfg, **change)
    for look in (wrong.check, lambda: Procedure({"distillation": wrong}), lambda: Procedure(Students(x=wrong))):
        with pytest.raises(UsageError, match=r"^\w+(\.\w+)*=.{1,200}: expected "):
            look()


def test_every_value_of_every_config_is_in_range_and_reads_back(config):
    config.check()
    assert override(config, [f"{one.key}={show(one.value)}" for one in settings(config)]) == config


def test_every_config_comes_back_from_its_json(config):
    assert restore(Recipe, json.loads(json.dumps(dataclasses.asdict(config)))) == (config, [])


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        *((text, bool, True) for text in ("true", "True", "TRUE", "yes", "on", "1")),
        *((text, bool, False) for text in ("false", "False", "no", "off", "0")),
        *((text, float | None, None) for text in ("none", "None", "null")),
        *((text, int, 100) for text in ("100", "1e2", "100.0", "+100", "1_00")),
        *((text, float, 0.75) for text in ("0.75", "3/4", "75e-2", ".75")),
        *(
            (text, tuple[int, ...], (30, 60))
            for text in ("30,60", "(30, 60)", "[30 60]", "30;60", "'30' '60'", "30, 60,")
        ),
        ("", tuple[int, ...], ()),
        ("0.5,0.5,0.5", tuple[float, float, float] | None, (0.5, 0.5, 0.5)),
        ("a,b", str | tuple[str, ...], ("a", "b")),
        ("a", str | tuple[str, ...], "a"),
        ("((1, 0), (5, 1))", tuple[tuple[float, float], ...], ((1, 0), (5, 1))),
        ("[a] b=c", str, "[a] b=c"),
    ],
)
def test_a_value_may_be_spelt_in_any_usual_way(text, kind, value):
    assert parse(text, kind) == value
    assert type(parse(text, kind)) is type(value)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        *(("nan", float), ("inf", float), ("1e999", float), ("1/0", float), ("", float), ("3.5", int), ("1e400", int)),
        *(("maybe", bool), ("2", bool), ("1,2", tuple[float, float, float]), ("1,2,3", tuple[tuple[int, int], ...])),
    ],
)
def test_what_is_no_such_value_is_refused(text, kind):
    with pytest.raises((ValueError, ArithmeticError)):
        parse(text, kind)


def test_numbers_too_long_to_compute_with_are_refused():
    for typed in ("optim.init_lr=", "data.batch_size="):
        for end in ("", "/1"):
            with pytest.raises(UsageError, match=r": expected|at most"):
                override(cfg, [f"{typed}1{'0' * 400}{end}"])


def test_options_and_taps_that_are_not_set_yet_may_be_set():
    made = override(cfg, ["terms.cross_entropy.options.label_smoothing=0.1", "student.taps.stage1=layer1.0"])
    assert made.last.terms["cross_entropy"].options == {"label_smoothing": 0.1}
    assert made.student.taps == {"stage1": "layer1.0"}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[1]",
        b"{",
        b'{"name": "x"}',
        b"\xff",
        b'{"name": "x", "optim": 3}',
        b'{"name": "x", "phases": 3, "optim": {}}',
    ],
)
def test_a_damaged_file_of_settings_is_named(tmp_path, content):
    path = tmp_path / "config.json"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"config\.json is damaged"):
        restore_file(path, Recipe, as_today)


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (
            "from knowledge_distiller import Term\ncfg = Term(objectiv='kd')",
            r"config\.py, line 2: Term has no setting 'objectiv'; near: objective$",
        ),
        (
            "from dataclasses import replace\nfrom imagenet_train_cfg import cfg\n\ncfg = replace(cfg, phase={})",
            r"line 4: Recipe has no setting 'phase'; near: phases$",
        ),
        ("def cfg(teacher='a'):\n    return {}[teacher]", r"line 2: KeyError: 'a'$"),
        ("x = 1\ncfg = (", r"config\.py, line 2: SyntaxError: '\(' was never closed$"),
        ("import nothing_like_this", r"line 1: ModuleNotFoundError: No module named 'nothing_like_this'$"),
        ("import beside\ncfg = 3", r"beside\.py, line 1: ZeroDivisionError"),
    ],
)
def test_a_mistake_in_a_config_names_its_line_and_what_is_near(tmp_path, monkeypatch, code, message):
    monkeypatch.setattr("sys.path", [*sys.path])
    (tmp_path / "config.py").write_text(f"{code}\n")
    (tmp_path / "beside.py").write_text("1 / 0\n")
    with pytest.raises(UsageError, match=message):
        read_config(tmp_path / "config.py", Recipe)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--cfg", "imagenet_patient"], r"no such file; near: configs/imagenet_patient\.py"),
        (
            ["method=dkd"],
            r"method=dkd: .*imagenet_train_cfg\.py has no methods; --cfg configs/imagenet\.py method=dkd has",
        ),
        (["--cfg", "imagenet_train_cfg.py", "--methods"], "has no methods; leave --cfg out"),
        (["--eval", "x", "--fresh"], "leave one out"),
        (["--eval"], "expected one argument"),
        (["word"], "word: expected a setting as key=value"),
        (
            ["data.batch_size=[bold]abc[/bold]"],
            r"^data\.batch_size=\[bold\]abc\[/bold\]: expected a whole number, at least 1$",
        ),
    ],
)
def test_a_command_line_that_is_wrong_is_refused_with_what_is_right(monkeypatch, words, message):
    monkeypatch.setattr("sys.argv", ["door", *words])
    with pytest.raises(UsageError, match=message):
        read_command_line("")


def test_help_shows_every_setting_and_option_as_it_may_be_typed(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["door", "--help"])
    with pytest.raises(SystemExit) as stopped:
        read_command_line("What it does.")
    assert stopped.value.code == 0
    shown = capsys.readouterr().out
    assert shown.startswith("What it does.")
    words = [line.strip() for line in shown.splitlines() if "=" in line and line.startswith("  ") and line[2] != " "]
    assert {typed.partition("=")[0] for typed in words} >= {one.key for one in settings(cfg)}
    assert "terms.cross_entropy.options.label_smoothing=0.0" in words
    last = dataclasses.replace(override(cfg, words).last, terms=cfg.last.terms)
    assert dataclasses.replace(override(cfg, words), phases={"distillation": last}) == cfg


def test_settings_without_effect_are_named():
    assert cfg.unused_settings == []
    words = ["optim.optimizer=adamw", "optim.momentum=0.5", "data.pad=8", "optim.betas=0.9,0.99"]
    assert override(cfg, words).unused_settings == [
        "data.pad=8 has no effect with data.type_of_data_aug=random_sized",
        "optim.momentum=0.5 has no effect with optim.optimizer=adamw",
    ]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["student.head.name=embeding"], r"^student\.head\.name=embeding: there is embedding"),
        (["student.head.name=embedding"], r"^student\.head\.options: embedding needs dimensions"),
        (
            ["teachers.teacher.head.options.dimensions=3"],
            r"^teachers\.teacher\.head\.options: own has no option dimensions",
        ),
    ],
)
def test_a_wrong_head_names_its_network(words, message):
    with pytest.raises(UsageError, match=message):
        override(cfg, words).check()


def test_a_choice_that_may_be_empty_says_so():
    assert in_words(Literal["", "prior", "all"]) == "one of prior, all, or nothing"
    assert in_words(Literal["prior", "all"]) == "one of prior, all"


def test_what_a_run_has_no_setting_for_is_said_to_be_asked_of_that_run(monkeypatch, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(dataclasses.asdict(cfg)))
    monkeypatch.setattr("sys.argv", ["door", "--eval", str(tmp_path), "--cfg", "configs/imagenet.py", "method=dkd"])
    with pytest.raises(UsageError, match=f"^--eval {tmp_path} goes by the settings of its run: no setting 'method'"):
        read_command_line("")
