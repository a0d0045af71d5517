"""Runs with a store, as a user starts them: filled, read, killed, on ranks, by the tool, and shared by students."""

import json
import shutil

import pytest
import small_store
from conftest import call, trained
from small_run import KILL_AT_STEP, learned, words
from small_store import files

from stored.store import Store
from tools import teacher_outputs
from training import checkpoint
from utils.errors import DataError

LAYOUT = ["teachers.teacher.layout.name=prior", "teachers.teacher.layout.k=4", "teachers.teacher.layout.views=2"]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return small_store.weights(tmp_path_factory.mktemp("teacher"))


def given(digits, weights, runs, store, *more):
    teacher = [f"teachers.teacher.weights={weights}", "teachers.teacher.expect=0", "method=wsld"]
    return [*words(digits, runs, *teacher, *more), *([f"teachers.teacher.store={store}", *LAYOUT] if store else [])]


@pytest.fixture(scope="module")
def filled(digits, weights, tmp_path_factory):
    """A run that nothing befell, and the store that it filled."""
    folder = tmp_path_factory.mktemp("filled")
    trained(*given(digits, weights, folder, folder / "store"))
    return folder


def test_a_run_that_reads_learns_what_the_one_that_filled_did(digits, weights, filled, tmp_path, run):
    code, said, _ = run(*given(digits, weights, tmp_path, filled / "store"))
    assert code == 0
    assert f"teachers.teacher: not built, its outputs are all in {filled / 'store'}" in said
    assert learned(tmp_path / "run") == learned(filled / "run")
    code, _, error = run(*given(digits, weights, tmp_path / "other", filled / "store", "train_params.seed=1"))
    assert code == 2
    assert "holds other outputs: seed 0 there, 1 here" in error


def test_float32_outputs_are_those_of_the_live_teacher(digits, weights, tmp_path, run):
    stored = [f"teachers.teacher.store={tmp_path / 'store'}", "teachers.teacher.layout.type=float32"]
    for more in ([], ["name=stored", *stored]):
        code, _, error = run(*given(digits, weights, tmp_path, None, *more))
        assert code == 0, error
    assert learned(tmp_path / "stored") == learned(tmp_path / "run")


def test_a_run_that_is_killed_fills_the_same_bytes(digits, weights, filled, tmp_path, train, altered):
    command = given(digits, weights, tmp_path, tmp_path / "store")
    for step in (6, 9, 14):
        altered(KILL_AT_STEP.format(step=step, signal="SIGKILL"), *command, code=-9)
    train(*command)
    assert learned(tmp_path / "run") == learned(filled / "run")
    assert files(tmp_path / "store") == files(filled / "store")


def test_a_full_disk_of_the_store_costs_the_run_nothing(digits, weights, filled, tmp_path, run, monkeypatch):
    command, write = given(digits, weights, tmp_path, tmp_path / "store"), Store.write_part
    for step in (16, 18):  # within the epoch that is not made with the priors, and at its end

        def full(self, view, epoch, name, *records, step=step):
            if name.endswith(f"_{step:09d}"):
                raise DataError(f"{self.path}: the disk is full; free some space and run the same command again")
            write(self, view, epoch, name, *records)

        with monkeypatch.context() as patch:
            patch.setattr(Store, "write_part", full)
            code, _, error = run(*command)
        assert (code, "the disk is full; free" in error) == (3, True)
        assert json.loads(checkpoint.load(tmp_path / "run/last.pt")["position"])["step"] == step
    assert run(*command)[0] == 0
    assert learned(tmp_path / "run") == learned(filled / "run")
    assert files(tmp_path / "store") == files(filled / "store")


def test_the_tool_fills_what_a_run_lacks_and_compares_it(digits, weights, filled, tmp_path, run, ran):
    shutil.copytree(filled / "store", tmp_path / "store")
    shutil.rmtree(tmp_path / "store/weak/0001")
    command = given(digits, weights, tmp_path, tmp_path / "store")
    ended = ran(teacher_outputs.main, *command, "terms.wsld.strong=no")
    said = ended.stdout
    assert "terms.wsld.strong=no is now terms.wsld.view=weak" in ended.stderr
    assert "the teacher looked at 120 views" in said
    assert "3 of 3 epochs complete" in said
    assert "KL 0." in said
    said = ran(teacher_outputs.main, *command, "--check").stdout
    assert "epoch 3: 64 samples, distance" in said
    (block,) = (tmp_path / "store/weak/0002").iterdir()
    block.write_bytes(block.read_bytes()[:-1])
    assert "is damaged" in ran(teacher_outputs.main, *command, "--check", code=3).stderr
    assert block.exists()
    shutil.rmtree(tmp_path / "store/weak/prior")
    code, said, error = run(*command, "teachers.teacher.on_damage=recompute")
    assert code == 0, error
    assert "2 of 3 epochs are in" in said
    assert files(tmp_path / "store") == files(filled / "store")


def test_two_ranks_fill_one_store(digits, weights, filled, tmp_path):
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "train_with_distillation.py"]
    call(*command, *given(digits, weights, tmp_path, tmp_path / "store"))
    assert files(tmp_path / "store").keys() == files(filled / "store").keys()


def test_students_of_one_stream_read_and_fill_one_store(digits, weights, filled, tmp_path, run):
    command = given(digits, weights, tmp_path, tmp_path / "store")
    code, _, error = run(*command, "--grid", "terms.wsld.weight=2.5,1")
    assert code == 0, error
    assert files(tmp_path / "store") == files(filled / "store")
    assert learned(tmp_path / "run_weight=2.5") == learned(filled / "run")
