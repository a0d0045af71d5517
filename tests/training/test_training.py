"""The loop through train_with_distillation.py: ranks, accumulation, precision, divergence, run folders, scores."""

import json
import re
import shutil

import pytest
import torch
from conftest import call
from ranks import MULTI_LABEL, everything, parameters_after_a_step
from safetensors.torch import load_file
from small_run import words

from figures.curves import read_metrics
from utils.distributed import Ranks

TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
ONE = Ranks(0, 1, torch.device("cpu"))


def scores(output):
    return dict(re.findall(r"(top1|top5|loss|images) ([\d.]+)", output))


def test_two_ranks_make_the_step_of_one_process(tmp_path):
    call(*TORCHRUN, "tests/ranks.py", str(tmp_path / "two.pt"))
    two = torch.load(tmp_path / "two.pt", weights_only=True)
    one = everything(ONE)
    assert one["memory of crd"].shape == (2, 8, 6)
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-5, atol=1e-6, msg=name)


def test_accumulated_parts_make_the_step_of_the_whole_batch():
    whole = parameters_after_a_step(ONE, grad_clip=0.1)
    torch.testing.assert_close(parameters_after_a_step(ONE, accumulate=4, grad_clip=0.1), whole, rtol=1e-5, atol=1e-7)
    assert not torch.allclose(parameters_after_a_step(ONE), whole)  # clipping did something
    whole, parts = (parameters_after_a_step(ONE, MULTI_LABEL, accumulate=parts) for parts in (1, 4))
    torch.testing.assert_close(parts, whole, rtol=1e-5, atol=1e-7)  # sums too


def test_bf16_stays_near_float32_and_keeps_float32_weights():
    full, half = parameters_after_a_step(ONE), parameters_after_a_step(ONE, amp="bf16")
    assert half.dtype == torch.float32
    assert not torch.equal(full, half)
    torch.testing.assert_close(half, full, rtol=0.05, atol=0.05)


def test_evaluation_is_the_same_on_two_ranks_and_counts_every_image_once(digits, tmp_path, train):
    trained = words(digits, tmp_path, "train_params.epochs=1", "train_params.amp=bf16", "optim.optimizer=adamw")
    output = train(*trained, "data.input_size=24", "data.val_resize=32").stdout
    evaluate = ["--eval", str(tmp_path / "run")]  # at the run's size and precision, without its config
    one = train(*evaluate).stdout
    two = call(*TORCHRUN, "train_with_distillation.py", *evaluate).stdout
    assert scores(one)["images"] == "41"
    assert scores(one) == scores(two)

    # The exported student is the one that was evaluated: the better of student and EMA.
    logged = [row for row in read_metrics(tmp_path / "run") if row["kind"] == "val"][-1]
    better = "ema_" if logged["ema_top1"] > logged["top1"] else ""
    for name, value in scores(one).items():
        assert float(value) == pytest.approx(logged[f"{better}{name}"], abs=6e-4)
    assert logged["ema_loss"] != logged["loss"]
    exported = train(*evaluate[:-1], str(tmp_path / "run" / "student.safetensors")).stdout
    assert scores(exported) == scores(one)
    # The run began by saying what it does.
    beginning = output.partition("epoch 1/1")[0].splitlines()
    assert len(beginning) <= 15
    assert all(len(line) <= 80 for line in beginning[1:])
    parts = ("120 + 41 images of 10 classes", "random_sized at 24 pixels", " M multiply-adds, random weights")
    parts += ("adamw, rate 0.1", "1 epoch of 6: 6 steps of 20 images", "CPU (no GPU found), bf16")
    assert [part for part in parts if part not in output] == []


def test_a_distilled_run_with_teacher_leaves_its_folder(digits, tmp_path, train):
    train(*words(digits, tmp_path, "name=teacher", "train_params.epochs=1"))
    teacher = tmp_path / "teacher" / "student.safetensors"
    distilled = words(digits, tmp_path, "name=student", "train_params.epochs=1", "teachers.teacher.name=cifar_resnet8")
    distilled.append("method=wsld")
    distilled += [
        f"teachers.teacher.weights={teacher}",
        "terms.wsld.options.temperature=3",
        "teachers.teacher.expect=0",
    ]
    before = teacher.read_bytes()
    train(*distilled)
    run = tmp_path / "student"
    assert teacher.read_bytes() == before
    names = {path.name for path in run.iterdir()}
    assert names >= {"config.json", "environment.json", "metrics.jsonl", "last.pt", "best.pt", "curves.png"}
    assert list((run / "tensorboard").iterdir())
    config = json.loads((run / "config.json").read_text())
    assert config["phases"]["distillation"]["terms"]["wsld"]["options"] == {"temperature": 3.0}
    row = read_metrics(run)[0]
    assert row["loss"] == pytest.approx(row["cross_entropy"] + 2.5 * row["wsld"], rel=1e-5)
    assert load_file(run / "student.safetensors").keys() == load_file(teacher).keys()
    # A teacher alone is evaluated by its name.
    assert scores(train(*distilled, "--eval", "teacher").stdout)["images"] == "41"
    # The finished run, repeated, trains no further.
    again = train(*distilled)
    assert "ended after step 6" in again.stdout
    assert len(read_metrics(run)) == 3


def test_a_loss_that_is_not_finite_stops_with_step_and_terms_and_keeps_the_checkpoint(digits, tmp_path, train, altered):
    poison = """
import torch, objectives.labels
from objectives.contract import _REGISTRY
calls = []
def poisoned(student, labels, *others, label_smoothing=0.0):
    calls.append(1)
    return student.sum() * (float("nan") if len(calls) == 6 else 0.1)
_REGISTRY["cross_entropy"] = _REGISTRY["cross_entropy"]._replace(made=poisoned)
"""
    done = altered(poison, *words(digits, tmp_path), code=4)
    assert "not finite at step 6: loss nan, cross_entropy nan" in done.stderr
    last = torch.load(tmp_path / "run" / "last.pt", weights_only=True)
    assert json.loads(last["position"])["step"] == 4
    assert all(value.isfinite().all() for value in last["student"].values())
    note = tmp_path / "run" / "diverged.txt"
    assert "not finite at step 6" in note.read_text()
    train(*words(digits, tmp_path))
    assert not note.exists()


def test_other_settings_are_refused_and_fresh_keeps_the_old_run(digits, tmp_path, train):
    short = words(digits, tmp_path, "train_params.epochs=1")
    train(*short)
    refused = train(*short, "optim.init_lr=0.05", code=2)
    assert "optim.init_lr 0.1 -> 0.05" in refused.stderr
    train(*short, "optim.init_lr=0.05", "--fresh")
    assert (tmp_path / "run.old1" / "last.pt").exists()
    train(*short, "optim.init_lr=0.05", "train_params.print_freq=1")  # speaks differently


def test_a_damaged_checkpoint_is_named(digits, tmp_path, train):
    short = words(digits, tmp_path, "train_params.epochs=1")
    train(*short)
    last = tmp_path / "run" / "last.pt"
    whole = bytearray(last.read_bytes())
    whole[len(whole) // 2] ^= 1
    for damaged in (bytes(whole), bytes(whole[: len(whole) // 2]), b""):
        last.write_bytes(damaged)
        assert "last.pt is damaged" in train(*short, code=3).stderr


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["data.data_path=/nowhere"], "data.data_path"),
        (["data.batch_size=21", "train_params.accumulate=2"], "does not divide"),
        (["data.batch_size=200"], "exceeds the 120 training images"),
        (["data.batch_size=0"], "data.batch_size=0: at least 1"),
        (["student.name=resnet19"], "near: resnet1"),
        (["terms.cross_entropy.objective=cross_entrpy"], "cross_entropy"),
        (["terms.cross_entropy.objective=wsld"], "no teacher 'teacher'"),
        (["student.num_classes=3"], "3 outputs, the data 10 classes"),
        (["optim.optimizer=apex_sgd"], "NVIDIA apex"),
        (["optim.init_lrr=1"], "optim.init_lr"),
        (["terms.cross_entropy.options.smoothing=1"], "label_smoothing"),
        (["--cfg", "configs/none.py"], "no such file"),
        (["--cfg", "configs"], "a folder; name one of its configs: cifar100.py"),
        (["name=../run"], "name=../run: expected a folder below"),
        (["--eval", "nothing", "data.data_path=nowhere"], "neither a file, nor a run's folder"),
        (["--evl", "teacher"], "no option --evl; near: --eval"),
        (["--config=config.py"], "no option --config=config.py; near: --cfg"),
    ],
)
def test_wrong_settings_end_with_code_2_before_any_work(digits, tmp_path, more, message, train):
    done = train(*words(digits, tmp_path, *more), code=2)
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


def test_a_truncated_shard_ends_with_code_3(digits, tmp_path, train):
    shutil.copytree(digits / "lmdb", tmp_path / "lmdb")
    shard = tmp_path / "lmdb" / "train" / "00000.lmdb"
    shard.write_bytes(shard.read_bytes()[:-4096])
    done = train(*words(digits, tmp_path, f"data.data_path={tmp_path / 'lmdb'}"), code=3)
    assert "00000.lmdb" in done.stderr
