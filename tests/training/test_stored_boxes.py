"""Detectors with a store: a run learns the same from one that it fills and one that is full, of each view alone."""

from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import small_detection
import torch
from small_detectors import sharp
from small_run import learned
from small_store import CPU, files
from torch import nn

from dataset.loader import TrainLoader
from knowledge_distiller import Term
from models.outputs import FOUND
from models.zoo import build_network
from networks import build_distiller, live_teacher, open_splits
from stored.layouts import LayoutConfig
from stored_teachers import stored_teacher
from teachers import Views
from tools import teacher_outputs
from training import filling
from training.filling import fill
from training.keeping import Keeping
from utils.distributed import Ranks
from utils.errors import DataError, UsageError

RANKS = Ranks(0, 1, CPU)
BOXES = {"boxes": Term("pseudo_boxes", options={"least_score": 0.3})}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Data, and the weights of a teacher of each kind whose scores differ."""
    folder = small_detection.write_data(tmp_path_factory.mktemp("rectangles"))
    for name in ("fasterrcnn", "fcos"):
        torch.manual_seed(5)
        network = sharp(build_network(small_detection.network(name), 3))
        for norm in network.modules():
            if isinstance(norm, nn.BatchNorm2d):  # as training makes it: zeros around an image then show in features
                nn.init.normal_(norm.bias, 0, 0.3)
        torch.save(network.network.state_dict(), folder / f"{name}.pth")
    return folder


def recipe(folder, runs, student="fasterrcnn", teacher="fasterrcnn", terms=BOXES, layout=None, **data):
    """Views of two shapes, a teacher with weights, and a store."""
    cfg = small_detection.recipe(folder, runs, student, teacher, terms)
    store = str(runs / "store")
    weights, layout = str(folder / f"{teacher}.pth"), layout or LayoutConfig()
    config = replace(cfg.teachers["teacher"], weights=weights, store=store, layout=layout)
    return replace(cfg, teachers={"teacher": config}, data=replace(cfg.data, short_sides=(40, 64), **data))


@pytest.fixture
def opened(folder):
    """Makes the parts of a run of a recipe: its loader and its stored teacher."""
    made = []

    def make(cfg, ahead=False):
        task = cfg.made_task()
        train, val = open_splits(cfg.data, task)
        loader = TrainLoader(train, cfg.data, cfg.train_params.seed, 0, 1, CPU, task.targets(train.classes))
        made.extend((loader, train, val))
        live = partial(live_teacher, [cfg], "teacher", train)
        return loader, stored_teacher([cfg], "teacher", train, live, ahead=ahead)

    yield make
    for one in made:
        one.close()


def epochs_of(cfg, loader, stored, epochs=range(2), first=0, stop=None):
    """What a student is given by (epoch, sample), as a run goes through the epochs, from a batch on, or up to one
    after which it is stopped; and the canvases that images have room on."""
    keeping = Keeping({"teacher": stored}, loader, cfg.train_params, RANKS, cfg.folder)
    keeping.prepare()
    given, canvases = {}, set()
    for epoch in epochs:
        keeping.begin(epoch)
        for number, batch in enumerate(loader.epoch(epoch, first), first):
            if number == stop:
                keeping.save(number)
                return given, canvases
            canvases.update(map(tuple, (-(-batch.sizes // 32) * 32).tolist()))
            found = stored(Views(batch), "weak", None).context
            for sample, *values in zip(batch.index.tolist(), *(found[name] for name in FOUND)):
                given[epoch, sample] = [value.clone() for value in values]
        keeping.end(100 * epoch)
        first = 0
    return given, canvases


def same(first, second):
    return first.keys() == second.keys() and all(
        torch.equal(*both) for key in first for both in zip(first[key], second[key], strict=True)
    )


@pytest.mark.parametrize("teacher", ["fasterrcnn", "fcos"])
def test_a_run_is_given_the_same_whether_it_fills_the_store_or_reads_it(folder, tmp_path, opened, teacher):
    cfg = recipe(folder, tmp_path, teacher=teacher)
    loader, stored = opened(cfg)
    first, canvases = epochs_of(cfg, loader, stored)
    assert canvases == {(64, 64), (64, 96)}
    assert sum((classes >= 0).sum() for _, _, classes in first.values()) > len(first)
    loader, stored = opened(cfg)
    assert stored.live is None
    assert same(epochs_of(cfg, loader, stored)[0], first)


def test_a_run_that_was_stopped_fills_the_same_bytes(folder, tmp_path, opened):
    stores = []
    for name, parts in (("whole", [{}]), ("stopped", [{"stop": 2}, {"epochs": [0, 1], "first": 2}])):
        cfg = recipe(folder, tmp_path / name)
        for part in parts:
            epochs_of(cfg, *opened(cfg), **part)
            if "stop" in part:
                assert list((tmp_path / name).glob("store/weak/0000/*.part"))
        stores.append(files(tmp_path / name / "store"))
    assert stores[0] == stores[1]


def test_what_is_stored_of_a_view_does_not_depend_on_the_images_beside_it(folder, tmp_path, opened):
    """Not the zeros around it either: of other batches, and by the tool, it is the same but for rounding."""
    tables = {}
    for name, size, ahead in (("run", 4, False), ("tool", 4, True), ("alone", 1, False), ("together", 16, False)):
        cfg = recipe(folder, tmp_path / name, batch_size=size)
        loader, stored = opened(cfg, ahead=ahead)
        if ahead:
            assert fill(stored, loader, range(2), nullcontext) == 32
        else:
            epochs_of(cfg, loader, stored)
        stored.begin(1, CPU)
        tables[name] = stored.stored("weak", torch.arange(16))
    for name in ("tool", "alone", "together"):
        assert stored.record.apart(tables["run"], tables[name]).max() < 1e-3, name


def test_what_is_stored_is_what_the_live_teacher_finds(folder, tmp_path, opened):
    """Where all images fill their canvas, but for the layout: the loss of a step is the same to four digits."""
    cfg = recipe(folder, tmp_path, batch_size=1)
    loader, stored = opened(cfg)
    epochs_of(cfg, loader, stored)
    (train, *_), losses = open_splits(cfg.data, cfg.made_task()), []
    batch = next(loader.epoch(0))
    for store in (str(tmp_path / "store"), ""):
        one = replace(cfg, teachers={"teacher": replace(cfg.teachers["teacher"], store=store)})
        distiller = build_distiller(one, train, RANKS).train()
        if store:
            distiller.teachers["teacher"].begin(0, CPU)
        losses.append(distiller(batch).values["boxes"].item())
    train.close()
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_the_likeliest_are_kept(folder, tmp_path, opened):
    cfg = recipe(folder, tmp_path, layout=LayoutConfig(detections=3))
    loader, stored = opened(cfg, ahead=True)
    fill(stored, loader, [0], nullcontext)
    stored.begin(0, CPU)
    of = filling.detections(stored, loader, 0, nullcontext, [0.0, 0.3, 1.0])
    assert of.found > of.kept
    assert of.kept <= 3
    assert of.kept == of.sure[0.0] >= of.sure[0.3] > of.sure[1.0] == 0
    assert of.pixels < 1e-3
    assert of.score < 1e-5
    assert filling.compare(stored, loader, 0, nullcontext).changed < 1e-6


def test_what_is_stored_is_compared_with_the_teacher(folder, tmp_path, opened):
    cfg = recipe(folder, tmp_path)
    loader, stored = opened(cfg, ahead=True)
    fill(stored, loader, range(2), nullcontext)
    stored.begin(1, CPU)
    assert filling.compare(stored, loader, 1, nullcontext).changed < 1e-6
    with pytest.raises(DataError, match="stored outputs of epoch 1 differ from the teacher's"):
        filling.compare(stored, loader, 0, nullcontext)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"terms": {**BOXES, "pkd": Term("pkd")}}, r"terms\.pkd: pkd reads fpn\*, and a store keeps boxes and classes"),
        ({"terms": {**BOXES, "kd": Term("kd")}}, r"terms\.kd: kd reads logits, and a store keeps .* of a detector"),
        ({"layout": LayoutConfig("topk")}, r"layout\.name=topk keeps logits, and of a detector boxes are"),
        (
            {"layout": LayoutConfig(detections=101)},
            r"detections=101: it gives teachers\.teacher\.detector\.detections=10",
        ),
    ],
)
def test_what_cannot_be_stored_is_refused(folder, tmp_path, opened, change, said):
    with pytest.raises(UsageError, match=said):
        opened(recipe(folder, tmp_path, **change))


def test_a_store_of_other_views_or_of_another_detector_is_refused(folder, tmp_path, opened):
    cfg = recipe(folder, tmp_path)
    loader, stored = opened(cfg, ahead=True)
    fill(stored, loader, range(2), nullcontext)
    opened(replace(cfg, data=replace(cfg.data, batch_size=2)))
    teacher = cfg.teachers["teacher"]
    same_number = LayoutConfig(detections=teacher.detector.detections)
    opened(replace(cfg, teachers={"teacher": replace(teacher, layout=same_number)}))
    for name, value in (("score_threshold", 0.1), ("nms", 0.7), ("detections", 50), ("proposals_after_nms", (9, 9))):
        other = replace(teacher, detector=replace(teacher.detector, **{name: value}))
        with pytest.raises(UsageError, match=rf"holds other outputs: .*teacher\.detector\.{name} "):
            opened(replace(cfg, teachers={"teacher": other}))
    for name, value in (("short_sides", (40,)), ("longest_side", 128), ("flip", False)):
        with pytest.raises(UsageError, match=rf"holds other outputs: data\.{name} "):
            opened(replace(cfg, data=replace(cfg.data, **{name: value})))


CONFIG = """
from pathlib import Path

from test_stored_boxes import recipe

cfg = recipe(Path({folder!r}), Path({folder!r}))
"""


def test_a_run_fills_another_reads_and_the_tool_compares(folder, tmp_path, monkeypatch, run, capfd):
    monkeypatch.syspath_prepend(Path(__file__).parent)
    config = folder / "boxes_cfg.py"
    config.write_text(CONFIG.format(folder=str(folder)))

    def words(runs):
        given = [f"train_params.output_path={tmp_path / runs}", f"teachers.teacher.store={tmp_path / 'store'}"]
        return ["--cfg", str(config), "*.epochs=1", *given]

    code, said, error = run(*words("filling"))
    assert code == 0, error
    assert "0 of 1 epochs are in" in said
    code, said, error = run(*words("reading"))
    assert code == 0, error
    assert "not built, its outputs are all in" in said
    assert learned(tmp_path / "reading/run") == learned(tmp_path / "filling/run")
    monkeypatch.setattr("sys.argv", ["teacher_outputs", *words("tool"), "--check"])
    teacher_outputs.main()
    said = capfd.readouterr().out
    assert "epoch 1: 16 samples, distance" in said
    assert "of score 0.3 or more, of boxes" in said
