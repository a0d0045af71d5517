"""Detection's batches: images in their own shapes, their boxes moved with them, the same on any number of ranks."""

import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from dataset.config import DataConfig
from dataset.feed.crops import short_side_axes
from dataset.feed.order import by_shape, epoch_order, evaluation_batches, shard_groups
from dataset.feed.targets import Objects, Window
from dataset.jpeg.views import COUNT
from dataset.loader import EvalLoader, TrainLoader
from dataset.store.record import Boxes, Record
from dataset.store.samples import Samples
from tasks import get
from utils.errors import DataError, UsageError

CPU = torch.device("cpu")
DATA = DataConfig(
    "x",
    4,
    0,
    type_of_data_aug="short_side",
    short_sides=(64, 80, 96),
    longest_side=150,
    val_crop="short_side",
    val_resize=96,
    val_batch_size=3,
)


class Marked(Samples):
    """Black images of odd sizes, each with a white rectangle and its box."""

    classes = ("mark", "other")

    def __init__(self) -> None:
        random = np.random.default_rng(0)
        self.records, sizes = [], []
        for number in range(26):
            height, width = random.integers(60, 180, 2).tolist()
            pixels = np.zeros((height, width, 3), np.uint8)
            top, left = random.integers(0, height - 30), random.integers(0, width - 30)
            pixels[top : top + 28, left : left + 22] = 255
            file = io.BytesIO()
            Image.fromarray(pixels).save(file, "JPEG", quality=100, subsampling=0)
            box = (float(left), float(top), float(left + 22), float(top + 28))
            self.records.append(Record(str(number), file.getvalue(), Boxes((box,), (1,), (False,), (False,))))
            sizes.append((height, width))
        self.labels, self.sizes = np.tile(np.array([[0, 1]], np.int8), (26, 1)), np.array(sizes)

    def __len__(self) -> int:
        return len(self.records)

    def read(self, index: int) -> Record:
        return self.records[index]


SAMPLES = Marked()
TARGETS = get("detection").targets(SAMPLES.classes)


def of_epoch(config, epoch=0, rank=0, world=1):
    loader = TrainLoader(SAMPLES, config, 3, rank, world, CPU, TARGETS)
    return [copied(batch) for batch in loader.epoch(epoch)]


def copied(batch):
    return {name: tensor.clone() for name, tensor in batch.items()}


def agrees(batch):
    """Whether the white pixels of each image are those of its box, and there are none beside the image."""
    for number, pixels in enumerate(batch["images"]):
        (high, wide), canvas = batch["sizes"][number].tolist(), pixels.shape[1:]
        assert pixels[:, high:].sum() == pixels[:, :, wide:].sum() == 0
        x1, y1, x2, y2 = batch["boxes"][number, 0].tolist()
        assert 0 <= x1 <= x2 <= wide <= canvas[1]
        assert 0 <= y1 <= y2 <= high <= canvas[0]
        white = (pixels[0].double() / 255).numpy()
        assert white.sum() == pytest.approx((x2 - x1) * (y2 - y1), rel=0.12, abs=30)
        if white.sum() > 40:
            rows, columns = (
                white.sum(axis) / white.sum() @ (np.arange(white.shape[1 - axis]) + 0.5) for axis in (1, 0)
            )
            assert (columns, rows) == pytest.approx(((x1 + x2) / 2, (y1 + y2) / 2), abs=1.0)


@pytest.mark.parametrize("change", [{}, {"largest_crop": 64}, {"decode": "exact"}])
def test_a_box_holds_the_same_in_every_view(change):
    config = replace(DATA, **change)
    for epoch in range(3):
        for batch in of_epoch(config, epoch):
            assert all(side % 32 == 0 for side in batch["images"].shape[2:])
            agrees(batch)
            most = 64 if "largest_crop" in change else 150
            assert batch["sizes"].max() <= most
    for batch in EvalLoader(SAMPLES, config, 0, 1, CPU, TARGETS):
        agrees(batch)


def test_squares_serve_boxes_too():
    config = DataConfig("x", 4, 0, input_size=48, val_resize=56)
    for batch in TrainLoader(SAMPLES, config, 0, 0, 1, CPU, TARGETS).epoch(0):
        assert batch["sizes"].tolist() == [[48, 48]] * 4
        agrees(batch)


def test_every_sample_is_seen_alike_on_any_number_of_ranks():
    whole = of_epoch(DATA, 1)
    parts = [of_epoch(DATA, 1, rank, 2) for rank in (0, 1)]
    assert len(whole) == len(SAMPLES) // 4
    for number, batch in enumerate(whole):
        both = {name: torch.cat([part[number][name] for part in parts]) for name in batch}
        assert all(torch.equal(tensor, both[name]) for name, tensor in batch.items())
    scored = [[copied(batch) for batch in EvalLoader(SAMPLES, DATA, rank, 2, CPU, TARGETS)] for rank in (0, 1)]
    alone = [copied(batch) for batch in EvalLoader(SAMPLES, DATA, 0, 1, CPU, TARGETS)]
    seen = [number for batches in scored for batch in batches for number in batch["index"].tolist()]
    assert sorted(seen) == list(range(len(SAMPLES)))
    of_sample = {
        number: image for batch in alone for number, image in zip(batch["index"].tolist(), batch["images"], strict=True)
    }
    for batches in scored:
        for batch in batches:
            for number, image in zip(batch["index"].tolist(), batch["images"], strict=True):
                assert torch.equal(image, of_sample[number])


def test_evaluation_passes_over_a_batch_that_cannot_be_read():
    damaged = Marked()
    for number in (0, 5):
        damaged.records[number] = replace(damaged.records[number], image=b"none")
    loader = EvalLoader(damaged, replace(DATA, val_batch_size=1, on_fault="skip"), 0, 1, CPU, TARGETS)
    with pytest.warns(RuntimeWarning):
        seen = [batch["index"].tolist() for batch in loader]
    assert sorted(seen) == [[number] for number in range(len(SAMPLES)) if number not in (0, 5)]


def test_evaluation_shows_pillows_resize():
    for batch in EvalLoader(SAMPLES, replace(DATA, decode="exact"), 0, 1, CPU, TARGETS):
        for number, image in zip(batch["index"].tolist(), batch["images"], strict=True):
            pixels = Image.open(io.BytesIO(SAMPLES.records[number].image))
            short, long = sorted(pixels.size)
            sizes = [side * 96 // short if 96 * long <= 150 * short else side * 150 // long for side in pixels.size]
            expected = np.asarray(pixels.resize(sizes, Image.Resampling.BILINEAR))
            shown = image[:, : sizes[1], : sizes[0]].permute(1, 2, 0).numpy()
            assert np.abs(shown - expected.astype(int)).max() <= 1  # of shapes that Pillow resizes vertically first


def test_resized_shapes_by_hand():
    sizes = np.array([[480, 640], [427, 640], [640, 200], [100, 100]])
    shown = short_side_axes(sizes, 800, 1333)[:, :, COUNT]
    assert shown.tolist() == [[800, 1066], [800, 1199], [1333, 416], [800, 800]]


def test_batches_are_of_similar_shapes_and_lose_nothing():
    random = np.random.default_rng(1)
    sizes = random.integers(50, 500, (203, 2))
    order = epoch_order(0, 4, [203])
    grouped = by_shape(order, sizes, 8)
    assert sorted(grouped.tolist()) == list(range(203))
    assert grouped[200:].tolist() == order[200:].tolist()  # those without a batch are of any shape
    ratios = np.log2(sizes[:, 1] / sizes[:, 0])[grouped]
    spreads = [np.ptp(ratios[start : start + 8].clip(-1.001, 1.001)) for start in range(0, 200, 8)]
    assert np.mean(np.array(spreads) <= 1 / 3 + 1e-9) > 0.6  # the rest are what is left of the bins
    assert not np.array_equal(grouped, by_shape(epoch_order(0, 5, [203]), sizes, 8))


def test_groups_of_shards_are_read_one_behind_the_other():
    shards, batch = [50, 70, 40, 60, 30], 8
    sizes = np.random.default_rng(2).integers(50, 500, (250, 2))
    order, groups = epoch_order(0, 1, shards, "blocks", 2), shard_groups(0, 1, 5, 2)
    stretches = [sum(shards[number] for number in group) for group in groups]
    grouped = by_shape(order, sizes, batch, stretches)
    assert sorted(grouped.tolist()) == list(range(250))
    group_of = np.repeat([next(n for n, group in enumerate(groups) if shard in group) for shard in range(5)], shards)
    batches = [[group_of[one[start : start + batch]] for start in range(0, 248, batch)] for one in (order, grouped)]
    assert all(set(before) == set(after) for before, after in zip(*batches))
    assert not np.array_equal(grouped, order)


def test_evaluation_batches_are_of_one_canvas():
    canvases = np.random.default_rng(2).integers(1, 4, (40, 2)) * 32
    batches = [batch for rank in range(3) for batch in evaluation_batches(canvases, 4, rank, 3)]
    assert sorted(np.concatenate(batches).tolist()) == list(range(40))
    assert all(len(batch) <= 4 and (canvases[batch] == canvases[batch[0]]).all() for batch in batches)


def put(boxes, window, mirror=False, size=(50, 100), **options):
    targets = Objects(3, **{"most": 4, "difficult": "ignore", "least_shown": 0.25, **options})
    out = {name: np.ones(shape, kind) for name, (kind, shape) in targets.layout(1).items()}
    out["sizes"] = np.array([size])
    targets.put(boxes, window, mirror, out, 0)
    return {name: array[0].tolist() for name, array in out.items()}


def test_objects_by_hand():
    boxes = Boxes(
        ((10, 10, 30, 30), (0, 0, 8, 8), (18, 10, 58, 20), (50, 50, 60, 60)),
        (0, 1, 2, 0),
        (False, False, False, True),
        (False, True, False, False),
        (300.0, 64.0, 10.0, 100.0),
    )
    whole = Window(0, 0, 100, 200)  # at half its size
    found = put(boxes, whole)
    assert found["boxes"][0] == [5, 5, 15, 15]
    assert found["areas"][0] == 300
    assert found["learned"] == [1, -1, 1, -1]
    assert found["classes"] == [0, 1, 2, 0]
    assert found["original_boxes"][2] == [18, 10, 58, 20]
    assert found["windows"] == [0, 0, 100, 200]
    assert found["crowd"] == [False, True, False, False]
    assert put(boxes, whole, difficult="remove")["learned"] == [1, -1, 1, 0]
    assert put(boxes, whole, difficult="learn")["learned"] == [1, -1, 1, 1]
    assert put(boxes, whole, mirror=True)["boxes"][0] == [85, 5, 95, 15]
    # The left of a crop cuts off three quarters of the first box, and less of the third.
    left = put(boxes, Window(0, 25, 50, 100))
    assert left["boxes"][0] == [0, 10, 5, 30]
    assert left["learned"] == [1, 0, 1, 0]
    assert left["boxes"][1] == [0, 0, 0, 0]
    assert put(boxes, Window(0, 26, 50, 100))["learned"][0] == -1
    none = put(Boxes((), (), (), ()), whole)
    assert none["classes"] == [-1] * 4
    assert none["learned"] == [0] * 4


def test_what_is_no_detection_is_refused():
    one = Boxes(((0, 0, 1, 1),), (3,), (False,), (False,))
    with pytest.raises(DataError, match="class that is not in 0 to 2"):
        put(one, Window(0, 0, 10, 10))
    with pytest.raises(DataError, match="most_objects=0"):
        put(one, Window(0, 0, 10, 10), most=0)
    with pytest.raises(DataError, match="--boxes"):
        put((1, 2), Window(0, 0, 10, 10))
    with pytest.raises(UsageError, match="difficult=no: one of ignore"):
        get("detection", {"difficult": "no"})
    with pytest.raises(UsageError, match=r"data\.mixup leaves boxes"):
        get("detection").check_data(DataConfig("x", mixup=0.2))
    with pytest.raises(UsageError, match=r"data\.short_sides: at least one"):
        replace(DATA, short_sides=()).check()
    unsized = Marked()
    unsized.sizes = None
    with pytest.raises(UsageError, match="short_side"):
        TrainLoader(unsized, DATA, 0, 0, 1, CPU, TARGETS)
