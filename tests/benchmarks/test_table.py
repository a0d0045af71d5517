"""The table of methods by pairs and the times of steps, as a user runs them."""

import importlib
import json
import sys
from types import SimpleNamespace

import pytest

from benchmarks import step, table
from utils.errors import UsageError


@pytest.fixture
def tabled(digits, tmp_path, command, run, monkeypatch):
    """The table's command with its runs in this process: what it printed of the table, and whether it trained."""
    trained = []

    def train(words):
        trained.append(words)
        return SimpleNamespace(returncode=run(*words[2:])[0])

    def made(*words):
        trained.clear()
        small = [f"data.data_path={digits / 'lmdb'}", "epochs=1", "data.batch_size=40", "data.num_workers=0"]
        small += ["--work", tmp_path, "--pairs", "resnet14/resnet8", "teachers.teacher.expect=0"]
        code, out, err = command(table.main, *words, *small)
        assert code == 0, err
        return [line for line in out.splitlines() if line.startswith("|")], len(trained)

    monkeypatch.setattr(table, "subprocess", SimpleNamespace(run=train))
    return made


def test_a_table_is_trained_printed_and_not_repeated(tabled, tmp_path):
    lines, trained = tabled("--methods", "kd", "--seeds", "2")
    assert trained == 5
    assert [line.split("|")[1].strip() for line in lines] == ["", "---", "teacher", "student alone", "kd"]
    assert " +- " in lines[-1]
    scores = json.loads((tmp_path / "table.json").read_text())["top1"]["resnet14/resnet8"]
    assert [len(scores[row]) for row in ("teacher", "student alone", "kd")] == [1, 2, 2]
    config = json.loads((tmp_path / "kd_resnet14_resnet8_seed1" / "config.json").read_text())
    assert (config["student"]["name"], config["train_params"]["seed"]) == ("cifar_resnet8", 1)
    assert config["teachers"]["teacher"]["weights"].endswith("none_resnet14_seed0/student.safetensors")
    assert tabled("--methods", "kd", "--seeds", "2") == (lines, 0)


@pytest.fixture
def refused(command):
    """What the table's command says when it stops with exit code 2."""

    def said(*words):
        code, _, err = command(table.main, *words)
        assert code == 2
        return err

    return said


def test_an_unknown_method_and_a_wrong_pair_are_named(refused, tmp_path):
    words = ["--seeds", "1", "--work", str(tmp_path)]
    said = refused("--methods", "kdd", "--pairs", "resnet20/resnet8", *words)
    assert "--methods kdd: kdd is no method for cifar100; there is ab, at, catkd" in said
    assert "expected teacher/student" in refused("--methods", "kd", "--pairs", "resnet20", *words)


def test_one_without_exactly_one_teacher_is_no_method(refused, tmp_path):
    words = ["--pairs", "resnet20/resnet8", "--work", str(tmp_path)]
    for method in ("uskd", "none", "kd_ensemble"):
        said = refused("--methods", "kd", method, *words)
        assert f"--methods {method}: {method} does not learn from exactly one teacher" in said
        known = said.partition("; there is ")[2].strip().split(", ")
        assert {"ab", "kd", "crld"} <= set(known)
        assert not {"uskd", "none", "kd_ensemble"} & set(known)
    assert not list(tmp_path.iterdir())


def parsed(module, monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", [module.__name__, *words])
    return module.parse()


def test_overrides_of_terms_and_phases_go_to_the_methods_that_have_them(monkeypatch):
    words = ["--methods", "ab", "kd", "--pairs", "resnet20/resnet8", "epochs=2"]
    own = ["phases.boundaries.epochs=1", "terms.kd.weight=2", "terms.cross_entropy.weight=1"]
    given = table.overrides_by_method(*parsed(table, monkeypatch, *words, *own))
    assert given == {
        "none": ["epochs=2"],
        "ab": ["epochs=2", "phases.boundaries.epochs=1", "terms.cross_entropy.weight=1"],
        "kd": ["epochs=2", "terms.kd.weight=2", "terms.cross_entropy.weight=1"],
    }


@pytest.mark.parametrize("typed", ["terms.dkd.weight=2", "phases.boundaries.epochs=1", "optim.nosuch=1"])
def test_an_override_that_fits_no_method_is_refused_before_training(refused, tmp_path, typed):
    said = refused("--methods", "kd", "--pairs", "resnet20/resnet8", "--work", str(tmp_path), typed)
    assert typed.partition("=")[0] in said
    assert "training" not in said


def test_a_method_of_two_phases_is_trained(tabled, tmp_path):
    tabled("--methods", "ab", "--seeds", "1", "first.boundaries.epochs=1")
    config = json.loads((tmp_path / "ab_resnet14_resnet8_seed0" / "config.json").read_text())
    assert config["phases"]["boundaries"]["epochs"] == 1


@pytest.mark.parametrize(
    ("module", "words", "message"),
    [
        (step, ["--pair", "resnet20"], "--pair resnet20: expected teacher/student, such as resnet32x4/resnet8x4"),
        (step, ["--methods", "uskd", "none"], "--methods uskd: uskd does not learn from"),
        (step, ["--methods", "kd_ensemble"], "--methods kd_ensemble: kd_ensemble does not"),
        (step, ["--methods", "kdd"], "--methods kdd: kdd is no method for cifar100; there is ab"),
        (step, ["--rounds", "0"], "--rounds 0: at least 1"),
        (step, ["--steps", "0"], "--steps 0: at least 1"),
        (step, ["--batch", "0"], "--batch 0: at least 1"),
        (table, ["--methods", "kd", "--pairs", "a/b", "--seeds", "0"], "--seeds 0: at least 1"),
    ],
)
def test_wrong_options_are_refused(monkeypatch, module, words, message):
    with pytest.raises(UsageError) as refused:
        parsed(module, monkeypatch, *words)
    assert message in str(refused.value)


def test_a_step_on_another_data_set_takes_its_first_pair(monkeypatch, command):
    chosen = ["--on", "imagenet", "--methods", "kd"]
    assert parsed(step, monkeypatch, *chosen).pair == "resnet34/resnet18"
    words = ["--pair", "resnet50/timm/mobilenetv1_100", "--rounds", "1", "--steps", "1", "--batch", "1"]
    code, out, _ = command(step.main, *chosen, *words)
    assert code == 0
    assert '"method": "kd"' in out


@pytest.mark.parametrize("name", ["loader", "packing", "views", "real_photos"])
def test_a_benchmark_without_its_photos_ends_in_a_line_with_what_it_needs(name, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(sys, "argv", [name, "--data", str(tmp_path)])
    with pytest.raises(SystemExit) as stopped:
        importlib.import_module(f"benchmarks.{name}").main()
    assert stopped.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert str(tmp_path) in line
    assert "--data" in line
