"""Every row of the published tables is what its config runs: at a small size each is built and learns for a step."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from batches import batch_of

import networks
from configs import _cpsd, _l2d, _lshfm, _multi_label
from dataset.store.samples import Samples
from models.heads import HeadConfig
from partition.parts import Partition
from procedure import Procedure
from training.phases import Phase
from training.state import State
from training.step import step_on
from utils.distributed import Ranks

CLASSES = tuple("abcdef")
LARGE, LITTLE = "cifar_resnet8x4", "cifar_resnet8"
SMALL = {name: LARGE if name in ("resnet101", "resnet34") else LITTLE for name in _multi_label.NETWORKS}
DIMENSIONS = {name: 256 if network == LARGE else 64 for name, network in SMALL.items()}
LSHFM = [(data, row) for data, one in _lshfm.SETUPS.items() for row in one.rows]
CPSD = [(data, row) for data, rows in _cpsd.ROWS.items() for row in rows]
TINY = {"dimensions": 8, "heads": 2, "width": 16}
HEADS = {
    "own": {},
    "pooling": {},
    "label_embeddings": TINY,
    "label_tokens": {**TINY, "depth": 1},
    "query2label": TINY,
}


class Some(Samples):
    """Labels alone."""

    def __init__(self, classes):
        self.classes, self.labels = classes, np.eye(6, dtype=np.int8)[:, : len(classes)]

    def __len__(self):
        return 6

    def read(self, index):
        raise AssertionError("labels alone")


@pytest.fixture(autouse=True)
def small(monkeypatch):
    for name, network in SMALL.items():
        monkeypatch.setitem(_multi_label.NETWORKS, name, network)
        monkeypatch.setitem(_lshfm.DIMENSIONS, name, DIMENSIONS[name])


def takes_a_step(runs):
    """Every run builds its networks and every phase of it has a gradient for what it trains."""
    procedure = Procedure(runs)
    for cfg in procedure.runs.values():
        cfg.check()
        cfg.check_terms()
        student = _shrunk(cfg.student)
        teachers = {name: _shrunk(one) for name, one in cfg.teachers.items()}
        cfg = replace(cfg, student=student, teachers=teachers, data=replace(cfg.data, input_size=32))
        classes, place = cfg.data.classes or CLASSES, Ranks(0, 1, torch.device("cpu"))
        distiller = networks.build_distiller(cfg, Some(classes), place)
        state = State(distiller, cfg.phases, cfg.train_params, cfg.made_task(), None, place)
        images = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
        batch = batch_of(images, present=torch.randint(-1, 2, (4, len(classes))).to(torch.int8))
        for number in range(len(cfg.phases)):
            state.begin(number)
            distiller.train()
            trained = [parameter for group in state.optimizer.param_groups for parameter in group["params"]]
            before = [parameter.detach().clone() for parameter in trained]
            ((given, _),) = step_on(state, distiller, batch, 0.01)
            assert given.loss.isfinite()
            assert any(not torch.equal(old, new) for old, new in zip(before, trained, strict=True))
    return procedure


def _shrunk(network):
    options = {**network.head.options, **HEADS[network.head.name]}
    return replace(network, weights="none", head=HeadConfig(network.head.name, options))


@pytest.mark.parametrize("row", _l2d.ROWS, ids=str)
def test_a_pair_of_l2d(row):
    parts = {"feature": "none", "embeddings": "led", "logits": "mld"}
    procedure = takes_a_step(_l2d.l2d("coco", **row.overrides, **parts, weights="none"))
    assert list(procedure.last.last.terms) == ["bce", "label_embeddings", "mld"]


@pytest.mark.parametrize("part", ["feature", "embeddings", "logits"])
def test_each_part_of_l2d_may_be_another_or_absent(part):
    table = {"feature": _l2d.FEATURES, "embeddings": _l2d.EMBEDDINGS, "logits": _l2d.LOGITS}[part]
    for choice in table:
        parts = {"feature": "none", "embeddings": "none", "logits": "none", part: choice}
        runs = _l2d.l2d("voc", "resnet18", "resnet50", **parts, weights="none")
        takes_a_step({"distillation": replace(runs["distillation"], teachers=_plain(runs["distillation"]))})


def _plain(recipe):
    return {name: replace(one, weights="none") for name, one in recipe.teachers.items()}


@pytest.mark.parametrize(("data", "row"), LSHFM, ids=str)
def test_a_row_of_lshfm(data, row):
    words = {"teacher": "resnet101", "method": "lshl2", **row.overrides}
    procedure = takes_a_step(_lshfm.lshfm(data, words["student"], words["teacher"], words["method"], "none"))
    phases = list(procedure.last.phases)
    if words["method"] in _lshfm.METHODS:
        sizes = {DIMENSIONS[name.partition("_g")[0]] for name in (words["student"], words["teacher"])}
        assert phases == ["distillation"] if len(sizes) == 1 else ["alignment", "distillation"]


@pytest.mark.parametrize(("data", "row"), CPSD, ids=str)
def test_a_row_of_cpsd(data, row, tmp_path):
    files = {"cgp": (("a", "d"), ("b", "c", "e", "f")), "dgp": (tuple("fedcba"),)}
    for name, parts in files.items():
        Partition(parts).write(tmp_path / f"{name}.json")
    files = {name: str(tmp_path / f"{name}.json") for name in files}
    words = {"metric": "mse", **row.overrides}
    procedure = takes_a_step(
        _cpsd.cpsd(
            data,
            words["model"],
            words["size"],
            **files,
            metric=words["metric"],
            alpha="0.5",
            manifest="",
            vectors="",
            weights="none",
            classes=CLASSES,
        )
    )
    if words["metric"] != "none":
        assert list(procedure.runs) == ["cgp0", "cgp1", "dgp0", "distillation"]
        assert {name: term.weight for name, term in procedure.last.last.terms.items()} == {
            "asymmetric": 0.5,
            "cgp": 0.25,
            "dgp": 0.25,
        }
    assert isinstance(procedure.last.last, Phase)
