"""What a GPU alone can show: batches and steps as on a CPU, steps that never wait for it, runs of every precision.

    LIMBECK_GPU=1 python -m pytest tests/test_on_gpu.py

Other tests see no GPU.
"""

import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import small_detection
import small_run
import torch
from batches import batch_of
from torch import nn

import networks
from configs import _l2d, _lshfm, _multi_label
from configs._method import setups
from configs.cifar100 import cfg as cifar100
from configs.methods import METHODS
from dataset.loader import DataConfig, EvalLoader, TrainLoader, open_split
from dataset.store.samples import Samples
from figures.curves import read_metrics
from knowledge_distiller import Term
from models.heads import HeadConfig
from training.state import State
from training.step import step_on
from utils.distributed import Ranks

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)
CLASSES = tuple("abcdef")
SMALL = {"resnet101": "cifar_resnet8x4", "resnet50": "cifar_resnet8"}
TINY = {"dimensions": 8, "heads": 2, "width": 16}
DETECTORS = ("fasterrcnn", "retinanet", "fcos")
OF_DETECTORS = {
    "pkd": ("pkd",),
    "maps": ("cwd", "mgd", "fgd", "reviewkd_levels"),
    "head": ("kd", "dkd", "lshfm"),
    "boxes": ("kd", "box_regression"),
    "towers": ("crosskd", "lshfm_windows"),
    "pseudo": ("pseudo_boxes",),
}
OF_FEATURES = ("feature_distance", "map_distance", "phi_s")  # of a teacher without a classifier
DECOMPOSED = ("kdsvd",)  # into vectors of any sign; and torch waits to see whether the decomposition converged


class Some(Samples):
    """Labels alone."""

    def __init__(self, classes, labels):
        self.classes, self.labels = classes, labels

    def __len__(self):
        return len(self.labels)

    def read(self, index):
        raise AssertionError("labels alone")


def single_label(method):
    names = setups(METHODS, "cifar100")[method].teachers
    teachers = {key: small for key, small in {"teacher": "resnet20", "second": "resnet14"}.items() if key in names}
    cfg = cifar100(method, student="resnet8", **teachers)
    return _untrained(cfg), Some(CLASSES, np.arange(60) % 6)


def multi_label(method):
    kind, _, name = method.partition(" ")
    if kind == "l2d":
        parts = {"feature": "none", "embeddings": "none", "logits": "none", **dict([name.split("=")])}
        cfg = _l2d.l2d("coco", "resnet101", "resnet50", **parts, weights="none")["distillation"]
    else:
        cfg = _lshfm.lshfm("coco", "resnet50", "resnet101", name, "none")["distillation"]
    return _untrained(cfg), Some(CLASSES, np.eye(6, dtype=np.int8))


def _untrained(cfg):
    teachers = {name: _shrunk(one) for name, one in cfg.teachers.items()}
    data = replace(cfg.data, input_size=32, classes=())
    return replace(cfg, student=_shrunk(cfg.student), teachers=teachers, data=data)


def _shrunk(network):
    options = TINY if network.head.name == "label_embeddings" else {}
    return replace(network, weights="none", head=replace(network.head, options={**network.head.options, **options}))


def detection(method):
    detector, _, terms = method.partition(" ")
    terms = {name: Term(name) for name in OF_DETECTORS[terms]}
    cfg = small_detection.recipe(Path("nowhere"), "nowhere", detector, detector, terms)
    return cfg, Some(small_detection.CLASSES, np.eye(3, dtype=np.int8))


def features(name):
    cfg = cifar100("kd", student="resnet8", teacher="resnet20")
    teacher = replace(cfg.teachers["teacher"], head=HeadConfig("none"))
    last = replace(cfg.last, terms={name: Term(name)})
    cfg = replace(cfg, task="features", teachers={"teacher": teacher}, phases={"distillation": last})
    return _untrained(cfg), Some(CLASSES, np.arange(60) % 6)


KINDS = {"single_label": single_label, "features": features, "multi_label": multi_label, "detection": detection}
CASES = [
    *(("single_label", method) for method in setups(METHODS, "cifar100")),
    *(("features", name) for name in OF_FEATURES),
    *(("multi_label", f"l2d logits={one}") for one in _l2d.LOGITS),
    *(("multi_label", f"l2d embeddings={one}") for one in _l2d.EMBEDDINGS if one != "none"),
    *(("multi_label", f"l2d feature={one}") for one in _l2d.FEATURES if one != "none"),
    *(("multi_label", f"lshfm {one}") for one in _lshfm.METHODS),
    *(("detection", f"{one} {terms}") for one in DETECTORS for terms in ("pkd", "maps", "pseudo")),
    *(("detection", f"fasterrcnn {terms}") for terms in ("head", "boxes")),
    *(("detection", f"{one} towers") for one in DETECTORS[1:]),
]


@pytest.fixture(autouse=True)
def exact(monkeypatch):
    """Small networks, and products in float32 as on a CPU."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    for name, small in SMALL.items():
        monkeypatch.setitem(_multi_label.NETWORKS, name, small)
        monkeypatch.setitem(_lshfm.DIMENSIONS, name, 256 if small.endswith("x4") else 64)


def stepping(case, device, amp="off"):
    """A function that takes a step of a case's first phase on one batch, and its state."""
    kind, method = case
    cfg, samples = KINDS[kind](method)
    place = Ranks(0, 1, device)
    cfg = replace(cfg, train_params=replace(cfg.train_params, amp=amp))
    state = State(
        networks.build_distiller(cfg, samples, place), cfg.phases, cfg.train_params, cfg.made_task(), None, place
    )
    state.distiller.train()
    batch = batch_for(kind)
    batch = replace(
        batch,
        images={name: images.to(device) for name, images in batch.images.items()},
        targets={name: target.to(device) for name, target in batch.targets.items()},
        index=batch.index.to(device),
        sizes=batch.sizes.to(device),
    )

    def step():
        ((given, part),) = step_on(state, state.distiller, batch, 0.01)
        state.meters.add(given, part, 1)
        return given

    return step, state


def batch_for(kind):
    generator = torch.Generator().manual_seed(3)
    side = 64 if kind == "detection" else 32
    images = torch.randint(0, 256, (8, 3, side, side), dtype=torch.uint8, generator=generator)
    images = images.contiguous(memory_format=torch.channels_last)
    if kind in ("single_label", "features"):
        return batch_of(images, torch.arange(8) % 6, strong=images.flip(3))
    if kind == "multi_label":
        return batch_of(images, present=(torch.arange(48).view(8, 6) * 7 % 3 < 1).to(torch.int8))
    boxes = torch.tensor([[4.0, 6, 30, 40], [20, 20, 60, 60]]).repeat(8, 1, 1)
    classes = torch.tensor([[0, 2], [1, -1]] * 4)
    return batch_of(images, boxes=boxes, classes=classes, learned=(classes >= 0).to(torch.int8))


@pytest.mark.parametrize("case", CASES, ids=" ".join)
def test_a_step_is_that_of_a_cpu(case):
    there, here = (stepping(case, device) for device in (GPU, CPU))
    for number in range(2):
        values = [{name: float(value) for name, value in step().values.items()} for step in (there[0], here[0])]
        draws = any(isinstance(one, nn.Dropout) and one.p for one in here[1].distiller.modules())
        if number == 0 and not draws and case[1] not in DECOMPOSED:
            assert values[0] == pytest.approx(values[1], rel=2e-3, abs=1e-4)


@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
@pytest.mark.parametrize("amp", ["off", "bf16"])
@pytest.mark.parametrize("case", [one for one in CASES if one[0] != "detection"], ids=" ".join)
def test_a_step_never_waits_for_the_gpu(case, amp):
    step, _ = stepping(case, GPU, amp)
    for _ in range(2):
        step()  # the first allocate, and choose algorithms
    try:
        torch.cuda.set_sync_debug_mode("default" if case[1] in DECOMPOSED else "error")
        given = step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert all(value.isfinite() for value in given.values.values())


def of_data(digits, **more):
    settings = {"batch_size": 20, "num_workers": 2, "input_size": 24, "val_resize": 24, "val_batch_size": 16}
    return DataConfig(str(digits / "lmdb"), **{**settings, **more})


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"num_workers": 0},
        {"color_jitter": 0.4},
        {"mixup": 0.3, "cutmix": 0.7},
        {"strong_view": True},
        {"cutout": 0.5},
        {"randaugment": True},
        {"auto_augment": "ra"},
        {"auto_augment": "ra_timm"},
        {"auto_augment": "ta_wide"},
        {"random_erase": 0.5},
        {"repeats": 2},
    ],
    ids=str,
)
def test_batches_are_those_of_a_cpu(digits, settings):
    config = of_data(digits, **settings)
    seen = []
    for device in (GPU, CPU):
        samples = open_split(config, "train", "lmdb")
        loader = TrainLoader(samples, config, 0, 0, 1, device)
        seen.append([])
        for epoch in range(2):
            for batch in loader.epoch(epoch):
                if device is GPU:
                    assert all(tensor.is_cuda for tensor in batch.named.values())
                seen[-1].append({name: tensor.cpu().clone() for name, tensor in batch.named.items()})
        loader.close()
        samples.close()
    assert len(seen[0]) == len(seen[1]) > 10
    for there, here in zip(*seen):
        for name, tensor in here.items():
            difference = (there[name].double() - tensor.double()).abs()
            turned = name == "strong" or (name == "weak" and "auto_augment" in settings)
            assert difference.max() <= (1 if tensor.dtype == torch.uint8 else 1e-6) or turned
            assert difference.mean() < 0.02


def test_evaluation_batches_are_those_of_a_cpu(digits):
    config = of_data(digits)
    seen = []
    for device in (GPU, CPU):
        samples = open_split(config, "val", "lmdb")
        loader = EvalLoader(samples, config, 0, 1, device)
        seen.append([batch.images["weak"].cpu().clone() for batch in loader])
        loader.close()
        samples.close()
    assert all(torch.equal(*both) for both in zip(*seen, strict=True))


RUNS = {
    "float32": [],
    "bf16": ["train_params.amp=bf16"],
    "fp16": ["train_params.amp=fp16"],
    "accumulated": ["train_params.amp=bf16", "train_params.accumulate=2"],
    "compiled": ["train_params.amp=bf16", "train_params.compile=True"],
}


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize("words", RUNS.values(), ids=RUNS)
def test_a_run_of_each_precision_stops_and_goes_on(digits, tmp_path, run, words):
    words = small_run.words(digits, tmp_path, "optim.schedule=step", "optim.milestones=", *words)
    for epochs in (1, 3):
        code, said, error = run(*words, f"epochs={epochs}")
        assert code == 0, error
        assert torch.cuda.get_device_name(0) in said
    rows = read_metrics(tmp_path / "run")
    assert [row["step"] for row in rows if row["kind"] == "val"] == [6, 12, 18]
    assert all(math.isfinite(row["loss"]) for row in rows)


def test_a_run_resumes_bit_for_bit_where_cudnn_is_deterministic(digits, tmp_path, run, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    for runs, parts in (("whole", (3,)), ("parts", (1, 3))):
        words = small_run.words(digits, tmp_path / runs, "optim.schedule=step", "optim.milestones=")
        for epochs in parts:
            code, _, error = run(*words, f"epochs={epochs}")
            assert code == 0, error
    assert small_run.learned(tmp_path / "whole" / "run") == small_run.learned(tmp_path / "parts" / "run")


def test_a_run_under_torchrun_with_nccl_and_sync_bn(digits, tmp_path):
    words = small_run.words(digits, tmp_path, "train_params.sync_bn=True", "train_params.amp=bf16")
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=1", "train_with_distillation.py"]
    done = subprocess.run([*command, *words], env=os.environ, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
