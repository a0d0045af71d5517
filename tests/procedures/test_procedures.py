"""Runs that teach each other, of one command: in order, resumed, several at a time, and what of them is refused."""

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT, trained
from small_multi_label import CLASSES, words, write_data
from small_run import KILL_AT_STEP, learned

from partition.parts import Partition
from procedure import Procedure, read_command_line
from training.manifest import read_manifest
from utils.errors import UsageError

TEACHER, STUDENT = "voc_tiny_l2d_teacher", "voc_tiny_l2d_tiny"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("squares"))


@pytest.fixture(scope="module")
def partitions(folder):
    """Words that name two partitions, of two parts each."""
    files = {"cgp": (("a", "c"), ("b", "d")), "dgp": (("d",), ("c", "b", "a"))}
    for name, parts in files.items():
        Partition(parts, name.upper()).write(folder / f"{name}.json")
    return [f"{name}={folder / name}.json" for name in files]


@pytest.fixture(scope="module")
def l2d(folder, tmp_path_factory):
    """The folder of both runs, which nothing befell."""
    runs = tmp_path_factory.mktemp("l2d")
    trained(*words(folder, runs))
    return runs


@pytest.fixture(scope="module")
def cpsd(folder, partitions, tmp_path_factory):
    runs = tmp_path_factory.mktemp("cpsd")
    trained(*words(folder, runs, "method=cpsd", *partitions))
    return runs


def test_the_teacher_comes_first_and_is_used_again(folder, l2d, train):
    rows = read_manifest(l2d / f"{STUDENT}.manifest.json")
    assert [(name, row["state"]) for name, row in rows.items()] == [("teacher", "trained"), ("distillation", "trained")]
    assert rows["teacher"]["classes"] == list(CLASSES)
    before = learned(l2d / TEACHER)
    again = train(*words(folder, l2d, "name=other", "epochs=1")).stdout
    assert f"{TEACHER}: trained before" in again
    assert learned(l2d / TEACHER) == before
    config = json.loads((l2d / "other/config.json").read_text())
    assert config["teachers"]["teacher"]["weights"] == str(l2d / TEACHER / "student.safetensors")


def killed_once(folder_exists, step):
    """Statements that kill the process at a step, once the folder of a run is there."""
    there = f"if Path({str(folder_exists)!r}).exists() and step =="
    return "from pathlib import Path\n" + KILL_AT_STEP.format(step=step, signal="SIGKILL").replace("if step ==", there)


def test_killed_in_the_middle_of_the_second_run_it_resumes_bit_for_bit(folder, l2d, tmp_path, train, altered):
    kill = killed_once(tmp_path / STUDENT, 5)  # of eight
    altered(kill, *words(folder, tmp_path), code=-signal.SIGKILL)
    resumed = train(*words(folder, tmp_path)).stdout
    assert f"{TEACHER}: trained before" in resumed
    assert "resumes after step 4" in resumed
    for run in (TEACHER, STUDENT):
        assert learned(tmp_path / run) == learned(l2d / run)


def test_a_manifest_of_parts_goes_on_where_it_was_killed(folder, partitions, cpsd, tmp_path, train, altered):
    command = words(folder, tmp_path, "method=cpsd", *partitions)
    altered(killed_once(tmp_path / "coco_tiny_448_cgp_1", 5), *command, code=-signal.SIGKILL)
    assert "coco_tiny_448_cgp_0: trained before" in train(*command).stdout
    names = sorted(path.name for path in cpsd.iterdir() if path.is_dir())
    assert len(names) == 5
    for name in names:
        assert learned(tmp_path / name) == learned(cpsd / name)
    (manifest,) = tmp_path.glob("*.manifest.json")
    assert {row["state"] for row in read_manifest(manifest).values()} == {"trained"}


def test_several_at_a_time_are_the_same(folder, partitions, cpsd, tmp_path, train):
    out = train(*words(folder, tmp_path, "method=cpsd", *partitions, "--at_a_time", "2"))
    assert "trained; 4 runs of 4" in out.stdout
    for path in cpsd.iterdir():
        if path.is_dir():
            assert learned(tmp_path / path.name) == learned(path)


def test_one_that_fails_is_named_and_the_others_are_kept(folder, partitions, tmp_path, train):
    command = words(folder, tmp_path, "method=cpsd", partitions[0], "cgp1.optim.init_lr=1e30", "--at_a_time=2")
    error = train(*command, code=3).stderr
    assert "1 run failed; the same command resumes" in error
    assert "coco_tiny_448_cgp_1.log" in error
    assert "the loss is not finite" in error
    (manifest,) = tmp_path.glob("*.manifest.json")
    states = {name: row["state"] for name, row in read_manifest(manifest).items()}
    assert (states["cgp0"], states["cgp1"], states["distillation"]) == ("trained", "failed", "waiting")


def test_a_signal_ends_all_of_them_and_the_same_command_resumes(folder, partitions, cpsd, tmp_path, train):
    command = words(folder, tmp_path, "method=cpsd", partitions[0], "--at_a_time=2")
    process = subprocess.Popen(
        [sys.executable, "train_with_distillation.py", *command],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert "started" in process.stdout.readline()
    process.terminate()
    _, error = process.communicate()
    assert process.returncode == 75, error
    resumed = train(*command[:-1], "--only", "cgp1").stdout
    assert "step 8" in resumed
    assert learned(tmp_path / "coco_tiny_448_cgp_1") == learned(cpsd / "coco_tiny_448_cgp_1")


def test_teachers_of_a_manifest_teach_another_student(folder, partitions, cpsd, tmp_path, train):
    (manifest,) = cpsd.glob("*.manifest.json")
    more = ["method=cpsd", f"manifest={manifest}", "name=other", "epochs=1"]
    out = train(*words(folder, tmp_path, *partitions, *more)).stdout
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["other"]
    assert out.count("teachers.cgp") == out.count("teachers.dgp") == 2
    Partition((("a", "b"), ("c", "d"))).write(tmp_path / "third.json")
    cgp = [f"cgp={tmp_path / 'third.json'}", "dgp="]
    error = train(*words(folder, tmp_path, *cgp, *more), code=2).stderr
    assert "no trained teacher of cgp part 0 (a, b); of classes that are no part of it: cgp0, cgp1, dgp0" in error


def test_a_partition_of_other_classes_is_refused(folder, partitions, tmp_path, train):
    Partition((("a", "z"), ("b", "c", "d"))).write(tmp_path / "foreign.json")
    command = words(folder, tmp_path, "method=cpsd", f"cgp={tmp_path / 'foreign.json'}", "dgp=")
    error = train(*command, code=2).stderr
    assert "teachers.cgp0 knows 1 class that the data lacks: 'z'; the data has 'a', 'b', 'c', 'd'\n" in error
    assert not (tmp_path / "coco_tiny_448_foreign_0").exists()


def test_mistakes_in_the_last_run_show_before_the_first_is_trained(folder, tmp_path, run):
    for mistake, says in (
        ("terms.pkt.options.zzz=1", "terms.pkt.options: pkt has no option zzz"),
        ("student.head.options.heads=3", "heads"),
        ("student.name=resnet999", "resnet999"),
        ("trainable=student.zzz", "nothing to train is called student.zzz"),
        ("distillation.data.data_path=/nowhere", "/nowhere/train is not a folder"),
    ):
        code, _, error = run(*words(folder, tmp_path, mistake))
        assert (code, says in error) == (2, True), error
        assert not (tmp_path / TEACHER).exists()


def test_a_teacher_of_other_data_is_not_used(folder, l2d, tmp_path, run):
    other = write_data(tmp_path / "other", turned=True)
    code, _, error = run(*words(other, l2d, "name=second"))
    assert code == 2
    assert f"{l2d / TEACHER} holds a run that read something else: the train split had other images or labels" in error


def asked(monkeypatch, *given):
    monkeypatch.setattr("sys.argv", ["", *given])
    return read_command_line("")


def test_overrides_are_for_all_runs_for_one_or_for_the_last(folder, partitions, monkeypatch, tmp_path):
    given = words(
        folder, tmp_path, "method=cpsd", *partitions, "cgp*.optim.init_lr=3", "epochs=7", "task_options.threshold=0.3"
    )
    procedure, _ = asked(monkeypatch, *given, "dgp0.name=mine")
    runs = procedure.runs
    assert [one.last.optim.init_lr for one in runs.values()] == [3, 3, 1e-4, 1e-4, 1e-5]
    assert [one.last.epochs for one in runs.values()] == [2, 2, 2, 2, 7]
    assert {one.task_options["threshold"] for one in runs.values()} == {0.3}
    assert procedure.resolved()["distillation"].teachers["dgp0"].weights == str(tmp_path / "mine/student.safetensors")
    with pytest.raises(UsageError, match=r"no setting 'cgp7\.epochs'"):
        asked(monkeypatch, *given, "cgp7.epochs=1")
    with pytest.raises(
        UsageError, match="--only cgp9: the runs of this config are cgp0, cgp1, dgp0, dgp1, distillation"
    ):
        asked(monkeypatch, *given, "--only", "cgp9")
    with pytest.raises(UsageError, match="--at_a_time 0: at least 1"):
        asked(monkeypatch, *given, "--at_a_time", "0")


def test_runs_that_cannot_be_in_this_order_are_refused(folder, monkeypatch, tmp_path):
    procedure, _ = asked(monkeypatch, *words(folder, tmp_path))
    teacher, student = procedure.runs.values()
    with pytest.raises(UsageError, match="run last needs run:teacher; before it there is none"):
        Procedure({"last": student})
    with pytest.raises(UsageError, match="run student: give it another name"):
        Procedure({"teacher": teacher, "student": student})


def test_the_merged_teachers_know_each_class_at_its_place(cpsd, folder, partitions, monkeypatch, tmp_path):
    import torch
    from batches import batch_of

    from teachers import Ensemble, Merged, Views, build_teacher, together

    procedure, _ = asked(monkeypatch, *words(folder, cpsd, "method=cpsd", *partitions))
    configs = procedure.resolved()["distillation"].teachers
    parts = {
        name: build_teacher(config, CLASSES, side=32, key=name, knows_all=False) for name, config in configs.items()
    }
    assert parts["cgp1"].places.tolist() == [1, 3]
    assert parts["dgp1"].places.tolist() == [0, 1, 2]
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 3, 32, 32), np.uint8))
    views = Views(batch_of(images, torch.tensor([0, 1])))
    merged = Merged([parts["dgp0"], parts["dgp1"]], CLASSES)(views, "weak", None).logits
    raw = {name: part.network.predict(images).logits for name, part in parts.items()}
    torch.testing.assert_close(merged[:, [2, 1, 0]], raw["dgp1"])  # c, b, a in the order of the part
    torch.testing.assert_close(merged[:, 3:], raw["dgp0"])
    with pytest.raises(UsageError, match=r"terms\.x\.teacher: several of the teachers know the class 'a'"):
        together([parts["cgp0"], parts["dgp1"]], CLASSES, "terms.x")
    with pytest.raises(UsageError, match="none of the teachers knows the class 'a'"):
        Merged([parts["cgp1"], parts["dgp0"]], "abcd"[:1])
    same = together([parts["cgp0"], parts["cgp0"]], CLASSES, "terms.x")
    assert isinstance(same, Ensemble)
    assert same.places.tolist() == [0, 2]


def test_part_teachers_are_stored_and_another_student_reads_them(cpsd, folder, partitions, run, tmp_path):
    (manifest,) = cpsd.glob("*.manifest.json")
    names = sorted(path.name.removeprefix("coco_tiny_448_") for path in cpsd.glob("*_[cd]gp_?"))
    stores = [f"teachers.{name.replace('_', '')}.store={tmp_path / name}" for name in names]
    for student in ("filling", "reading"):
        code, said, error = run(
            *words(
                folder,
                tmp_path / "runs",
                "method=cpsd",
                *partitions,
                f"manifest={manifest}",
                *stores,
                f"name={student}",
            )
        )
        assert code == 0, error
        assert said.count("not built, its outputs are all in") == (len(names) if student == "reading" else 0)
    assert learned(tmp_path / "runs" / "reading") == learned(tmp_path / "runs" / "filling")
