"""The table of methods by pairs, as a user runs it."""

import json

from conftest import call


def test_a_table_is_trained_printed_and_not_repeated(digits, tmp_path):
    words = ["--methods", "kd", "--pairs", "resnet14/resnet8", "--seeds", "2", "--work", str(tmp_path)]
    words += [f"data.data_path={digits / 'lmdb'}", "train_params.epochs=1", "data.batch_size=40", "data.num_workers=0"]
    first = call("-m", "benchmarks.table", *words)
    lines = [line for line in first.stdout.splitlines() if line.startswith("|")]
    assert [line.split("|")[1].strip() for line in lines] == ["", "---", "teacher", "student alone", "kd"]
    assert " +- " in lines[-1]
    scores = json.loads((tmp_path / "table.json").read_text())["top1"]["resnet14/resnet8"]
    assert [len(scores[row]) for row in ("teacher", "student alone", "kd")] == [1, 2, 2]
    config = json.loads((tmp_path / "kd_resnet14_resnet8_seed1" / "config.json").read_text())
    assert (config["student"]["name"], config["train_params"]["seed"]) == ("cifar_resnet8", 1)
    assert config["teachers"]["teacher"]["weights"].endswith("teacher_resnet14_seed0/student.safetensors")
    again = call("-m", "benchmarks.table", *words)
    assert [line for line in again.stdout.splitlines() if line.startswith("|")] == lines
    assert "training" not in again.stderr


def test_a_method_without_a_page_and_a_wrong_pair_are_named(tmp_path):
    words = ["--seeds", "1", "--work", str(tmp_path)]
    done = call("-m", "benchmarks.table", "--methods", "kdd", "--pairs", "resnet20/resnet8", *words, code=2)
    assert "--methods kdd: there is no configs/cifar100/kdd.py; there is ab, at, catkd" in done.stderr
    done = call("-m", "benchmarks.table", "--methods", "kd", "--pairs", "resnet20", *words, code=2)
    assert "expected teacher/student" in done.stderr
