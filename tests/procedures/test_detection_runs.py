"""Detectors from end to end: every method by every detector, on several ranks, killed and resumed."""

import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import call
from detection_ranks import everything
from small_detection import recipe, write_data
from small_run import KILL_AT_STEP, learned
from torch import nn

from dataset.loader import TrainLoader
from knowledge_distiller import Term
from models.zoo import NetworkConfig
from networks import build_distiller, open_splits
from objectives.contract import _REGISTRY
from utils.distributed import Ranks
from utils.errors import UsageError

ALONE = Ranks(0, 1, torch.device("cpu"))
DETECTORS = ("fasterrcnn", "retinanet", "fcos")
OURS = sorted(name for name, one in _REGISTRY.items() if one.is_ours)
EVERYWHERE = {"detection", "pkd", "cwd", "mgd", "fgd", "reviewkd_levels", "pseudo_boxes"}
BOX_HEADS = {"kd", "dkd", "lshfm", "box_regression"}
SERVED = {  # what must work, student by teacher; more may
    ("fasterrcnn", "fasterrcnn"): EVERYWHERE | BOX_HEADS,
    ("retinanet", "retinanet"): EVERYWHERE | {"lshfm_windows", "crosskd"},
    ("fcos", "fcos"): EVERYWHERE | {"crosskd"},
    ("retinanet", "fasterrcnn"): EVERYWHERE,
    ("fasterrcnn", "fcos"): EVERYWHERE,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("rectangles"))


@pytest.fixture(scope="module")
def samples(folder):
    cfg = recipe(folder, folder)
    train, val = open_splits(cfg.data, cfg.made_task())
    yield train
    train.close()
    val.close()


@pytest.mark.parametrize(("student", "teacher"), SERVED)
def test_every_method_takes_a_step_or_is_refused_by_name(folder, samples, student, teacher):
    cfg = recipe(folder, folder, student, teacher)
    loader = TrainLoader(samples, cfg.data, 0, 0, 1, ALONE.device, cfg.made_task().targets(samples.classes))
    batch = next(loader.epoch(0))
    served, refused = set(), {}
    for name in OURS:
        term = Term(name, options={"hashes": 8} if name.startswith("lshfm") else {})
        one = recipe(folder, folder, student, teacher, {"x": term})
        try:
            one.check()
            one.check_terms()
            distiller = build_distiller(one, samples, ALONE).train()
            given = distiller(batch)
        except UsageError as error:
            refused[name] = str(error)
            continue
        served.add(name)
        assert given.loss.isfinite(), name
        given.loss.backward()
        gradients = [p.grad for p in distiller.student.parameters() if p.grad is not None]
        assert all(gradient.isfinite().all() for gradient in gradients), name
        assert all(p.grad is None for p in distiller.teachers.parameters()), name
        del distiller, given
    loader.close()
    assert served >= SERVED[student, teacher]
    assert all(f"terms.x: {name}" in text or "gives no" in text for name, text in refused.items()), refused


@pytest.mark.parametrize(("student", "teacher"), [("fasterrcnn", "fcos"), ("retinanet", "fasterrcnn")])
def test_boxes_of_a_teacher_are_learned_alike_in_parts_and_without_boxes_of_ones_own(folder, samples, student, teacher):
    term = {"boxes": Term("pseudo_boxes", options={"least_score": 0.0})}
    cfg = recipe(folder, folder, student, teacher, term)
    config = replace(cfg.teachers["teacher"], detector=replace(cfg.teachers["teacher"].detector, score_threshold=0.0))
    loader = TrainLoader(samples, cfg.data, 0, 0, 1, ALONE.device, cfg.made_task().targets(samples.classes))
    batch = next(loader.epoch(0))
    only = replace(cfg, teachers={"teacher": config}, phases={"only": replace(cfg.last, terms=term)})
    distiller = build_distiller(only, samples, ALONE).train()
    for norm in distiller.student.modules():
        if isinstance(norm, nn.BatchNorm2d):  # which goes by the batch
            norm.eval()
    whole = distiller(batch).loss
    parts = [distiller(part).loss for part in batch.chunk(2)]
    torch.testing.assert_close(sum(parts) / 2, whole, rtol=1e-4, atol=0)
    none = {**batch.targets, "learned": torch.zeros_like(batch["learned"])}
    unlabelled = distiller(replace(batch, targets=none)).loss
    loader.close()
    torch.testing.assert_close(unlabelled, whole)
    assert distiller.reaches_everything
    unlabelled.backward()
    assert all(p.grad is not None for name, p in distiller.student.named_parameters() if p.requires_grad)


def test_where_all_is_ignored_there_is_no_region_to_compare(folder, samples):
    terms = {"kd": Term("kd"), "lshfm": Term("lshfm", options={"hashes": 8}), "pkd": Term("pkd")}
    cfg = recipe(folder, folder, terms=terms)
    loader = TrainLoader(samples, cfg.data, 0, 0, 1, ALONE.device, cfg.made_task().targets(samples.classes))
    batch = next(loader.epoch(0))
    boxes = torch.tensor([0.0, 0, 999, 999]).expand_as(batch["boxes"])
    crowds = {**batch.targets, "boxes": boxes, "learned": -torch.ones_like(batch["learned"])}
    distiller = build_distiller(cfg, samples, ALONE).train()
    given = distiller(replace(batch, targets=crowds))
    given.loss.backward()
    loader.close()
    assert [given.values[name].item() for name in ("kd", "lshfm")] == [0, 0]
    assert given.values["pkd"] > 0
    assert all(p.grad.isfinite().all() for p in distiller.student.parameters() if p.grad is not None)


def test_two_ranks_learn_and_score_as_one_process(folder, tmp_path):
    file = tmp_path / "two.pt"
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    call(*torchrun, "tests/detection_ranks.py", str(folder), str(file))
    alone = everything(folder, ALONE)
    for pair, both in torch.load(file, weights_only=False).items():
        torch.testing.assert_close(both["learned"], alone[pair]["learned"], rtol=1e-3, atol=1e-4)
        assert both["scores"] == pytest.approx(alone[pair]["scores"], nan_ok=True), pair


CONFIG = """
from pathlib import Path

from small_detection import Term, recipe

here = Path({folder!r})
cfg = recipe(here, here / "unused")
"""


def words(folder, runs):
    path = folder / "boxes_cfg.py"
    path.write_text(CONFIG.format(folder=str(folder)))
    return ["--cfg", str(path), f"train_params.output_path={runs}"]


def test_a_killed_run_resumes_bit_for_bit_and_leaves_what_others_do(folder, tmp_path, monkeypatch, train, altered):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).resolve().parents[1]))
    runs = tmp_path / "whole", tmp_path / "killed"
    train(*words(folder, runs[0]))
    altered(KILL_AT_STEP.format(step=5, signal="SIGKILL"), *words(folder, runs[1]), code=-signal.SIGKILL)
    resumed = train(*words(folder, runs[1])).stdout
    assert "resumes after step 4" in resumed
    assert learned(runs[0] / "run") == learned(runs[1] / "run")
    assert (runs[0] / "run" / "per_class.csv").exists()
    evaluated = train(*words(folder, runs[0]), "--eval", str(runs[0] / "run"))
    best = [row for row in learned(runs[0] / "run")[1] if row["kind"] == "val"]
    assert f"AP {max(row['AP'] for row in best):.3f}" in evaluated.stdout


def test_networks_and_tasks_that_do_not_go_together_are_refused(folder):
    cfg = recipe(folder, folder)
    with pytest.raises(UsageError, match=r"student\.name=cifar_resnet8 is no detector, and task=detection needs one"):
        replace(cfg, student=replace(cfg.student, name="cifar_resnet8")).check()
    with pytest.raises(UsageError, match=r"is a detector, and task=multi_label needs a classifier"):
        replace(cfg, task="multi_label").check()
    with pytest.raises(UsageError, match=r"data\.type_of_data_aug=short_side puts zeros beside images"):
        replace(cfg, task="multi_label", student=NetworkConfig("cifar_resnet8"), teachers={}).check()
    with pytest.raises(UsageError, match=r"data\.cutmix=1"):
        replace(cfg, data=replace(cfg.data, cutmix=1.0)).check()
