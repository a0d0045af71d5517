"""Every row of the tables of detection is what its config runs; at a small size each is built and learns for a step."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from batches import batch_of
from conftest import ROOT
from PIL import Image
from torch import nn

import networks
from configs import _detection, coco_detection, voc_detection
from dataset.store.samples import Samples
from models.detectors import DetectorConfig
from models.detectors.making import made
from models.detectors.names import parsed
from models.zoo import NetworkConfig, build_network
from procedure import Procedure
from training.checkpoint import export
from training.state import State
from training.step import step_on
from utils.distributed import Ranks
from utils.errors import UsageError

CONFIGS = {"coco": coco_detection, "voc": voc_detection}
ROWS = [(data, row) for data, config in CONFIGS.items() for row in config.ROWS]
LITTLE = dict.fromkeys(("resnet101", "resnet50", "vgg16", "vgg11"), "resnet18")
TINY = DetectorConfig(channels=32, representation=32, regions=8, proposals_after_nms=(32, 32), detections=8)
CLASSES, SIDE = tuple("abc"), 64


class Some(Samples):
    """Which classes are there, alone."""

    def __init__(self):
        self.classes, self.labels = CLASSES, np.eye(3, dtype=np.int8)

    def __len__(self):
        return 3

    def read(self, index):
        raise AssertionError("labels alone")


def little(overrides):
    """A row's words with small backbones in place of large ones; a VGG stays where it is the only kind of its neck."""
    if (overrides.get("neck"), overrides["method"]) == ("c4", "l2"):
        return {**overrides, "teacher": overrides["student"]}
    return {key: re.sub("|".join(LITTLE), lambda found: LITTLE[found[0]], word) for key, word in overrides.items()}


SMALL = {(data, *sorted(little(row.overrides).items())) for data, row in ROWS}


@pytest.fixture(scope="module")
def batch():
    """Two images of three objects."""
    torch.manual_seed(0)
    images = torch.randint(0, 256, (2, 3, SIDE, SIDE), dtype=torch.uint8)
    boxes = torch.tensor([[[4.0, 6, 30, 40], [20, 20, 60, 60]], [[8, 8, 40, 40], [0, 0, 0, 0]]])
    classes, learned = torch.tensor([[0, 2], [1, -1]]), torch.tensor([[1, 1], [1, 0]], dtype=torch.int8)
    return batch_of(images, boxes=boxes, classes=classes, learned=learned)


@pytest.mark.parametrize("row", sorted(SMALL), ids=lambda row: " ".join([row[0], *(word for _, word in row[1:])]))
def test_a_row_learns_for_a_step(row, batch):
    data, *words = row
    (*_, cfg) = CONFIGS[data].cfg(**dict(words), weights="none").values()
    student = replace(cfg.student, detector=TINY)
    teachers = {name: replace(one, weights="none", detector=TINY) for name, one in cfg.teachers.items()}
    cfg = replace(cfg, student=student, teachers=teachers, data=replace(cfg.data, input_size=SIDE))
    place = Ranks(0, 1, torch.device("cpu"))
    distiller = networks.build_distiller(cfg, Some(), place)
    state = State(distiller, cfg.phases, cfg.train_params, cfg.made_task(), None, place)
    state.begin(0)
    distiller.train()
    parameters = {name: one for name, one in distiller.named_parameters() if not name.startswith("teachers")}
    before = {name: one.detach().clone() for name, one in parameters.items()}
    ((given, _),) = step_on(state, distiller, batch, 0.01)
    assert given.loss.isfinite()
    assert all(given.sound.values())
    assert given.values.keys() == cfg.last.terms.keys()
    moved = {name for name, one in parameters.items() if not torch.equal(one, before[name])}
    assert not [name for name in moved if ".bn" in name] or cfg.last.freeze_norms == "statistics"
    assert any(name.startswith("student.body.backbone") for name in moved)
    of_terms = {name for name in parameters if name.startswith("matches.")}
    assert all(parameters[name].requires_grad for name in of_terms)
    assert moved & of_terms or not of_terms


@pytest.mark.parametrize(("data", "row"), ROWS, ids=str)
def test_a_row_is_a_procedure_of_known_settings(data, row):
    procedure = Procedure(CONFIGS[data].cfg(**row.overrides))
    for cfg in procedure.runs.values():
        cfg.check()
        cfg.check_terms()
        assert not cfg.unused_settings
    alone = row.overrides["method"] == "none"
    assert list(procedure.runs) == (["training"] if alone else ["teacher", "distillation"])
    assert procedure.last.student.weights == "IMAGENET1K_V1"


@pytest.mark.parametrize(
    "name", sorted({cfg.student.name for data, row in ROWS for cfg in CONFIGS[data].cfg(**row.overrides).values()})
)
def test_all_but_the_beginning_of_a_backbone_is_trained(name):
    named = parsed(name)
    with torch.device("meta"):
        network = made(named, DetectorConfig(), len(CLASSES))
    names = [f"student.{path}" for path, _ in network.named_parameters()]
    starts = _detection.trainable(named)
    assert all(any(path.startswith(f"{start}.") for path in names) for start in starts)
    kept = [path for path in names if starts and not any(path.startswith(f"{start}.") for start in starts)]
    assert all(path.startswith("student.backbone.body.") for path in kept)
    if named.backbone == "mobilenet_v2":
        assert not kept
        return
    convolutions = [path for path, one in network.backbone.body.named_modules() if isinstance(one, nn.Conv2d)]
    first = {"resnet18": 5, "resnet50": 11, "resnet101": 11, "vgg11": 2, "vgg16": 4}[named.backbone]  # stem, one stage
    assert {path.removesuffix(".weight") for path in kept} >= {
        f"student.backbone.body.{one}" for one in convolutions[:first]
    }
    assert not any(path.startswith(f"student.backbone.body.{one}.") for path in kept for one in convolutions[first:])


def test_settings_are_those_of_the_papers():
    runs = coco_detection.cfg(student="resnet18", teacher="resnet101", method="reviewdkd")
    last = runs["distillation"]
    assert {name: term.weight for name, term in last.last.terms.items()} == {
        **dict.fromkeys(("classes", "boxes", "objectness", "proposals", "dkd"), 1.0),
        "reviewkd": 1.2,
    }
    assert (last.data.batch_size, last.last.optim.init_lr, last.last.epochs) == (8, 0.01, 12)
    steps = 117_266 / 8
    assert [round(epoch * steps, -4) for epoch in last.last.optim.milestones] == [120_000, 160_000]
    assert round(last.last.optim.warmup_epochs * steps, -1) == 1000
    windows = voc_detection.cfg("vgg11", "vgg16", "lsh", "retinanet")["distillation"]
    assert (windows.last.terms["lshfm"].weight, windows.last.optim.init_lr) == (6.0, 0.005)
    assert windows.data.short_sides == (480, 512, 544, 576, 608, 640, 672, 704, 736, 768, 800)


def test_a_method_that_does_not_serve_a_detector_is_refused_by_name():
    with pytest.raises(UsageError, match="method=dkd"):
        coco_detection.cfg(method="dkd", detector="retinanet")
    with pytest.raises(UsageError, match="method=crosskd"):
        coco_detection.cfg(method="crosskd")
    with pytest.raises(UsageError, match="no detector"):
        coco_detection.cfg(student="resnet20")


def test_the_code_on_the_page_runs_a_student_in_torchvision(tmp_path, monkeypatch):
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs/detection.md").read_text(), re.DOTALL)
    network = build_network(NetworkConfig("fasterrcnn_resnet18_fpn"), 80, classes=tuple(map(str, range(80))))
    export(tmp_path / "student.safetensors", network.exported(network.network.state_dict()))
    Image.new("RGB", (160, 16), "red").save(tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(code, names)
    assert names["found"].keys() == {"boxes", "labels", "scores"}
