"""Targets move with the crop: what a box holds in the stored image is what it holds in the batch."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from dataset.config import DataConfig
from dataset.feed.crops import center_window
from dataset.loader import EvalLoader, TrainLoader
from dataset.store.record import Boxes, Record
from dataset.store.samples import Samples

SIDE = 48


class Marked(Samples):
    """Black images of odd sizes, each with a white rectangle and its box."""

    classes = ("mark",)

    def __init__(self, raw: bool = False) -> None:
        random = np.random.default_rng(0)
        self.records = []
        for number in range(24):
            height, width = random.integers(60, 130, 2)
            pixels = np.zeros((height, width, 3), np.uint8)
            top, left = random.integers(0, height - 30), random.integers(0, width - 30)
            pixels[top : top + 28, left : left + 22] = 255
            file = io.BytesIO()
            Image.fromarray(pixels).save(file, "JPEG", quality=100, subsampling=0)
            box = (float(left), float(top), float(left + 22), float(top + 28))
            self.records.append(Record(str(number), file.getvalue(), Boxes((box,), (0,), (False,), (False,))))
        self.labels = np.ones((24, 1), bool)

    def __len__(self) -> int:
        return len(self.records)

    def read(self, index: int) -> Record:
        return self.records[index]


class FirstBox:
    """`box` float32 [B, 4]: x1, y1, x2, y2 of the first object in pixels of the batch."""

    def layout(self, rows):
        return {"box": (np.float32, (rows, 4))}

    def put(self, target, window, mirror, out, row):
        x1, y1, x2, y2 = target.boxes[0]
        across, down = SIDE / window.width, SIDE / window.height
        x1, x2 = (across * (x - window.left) for x in (x1, x2))
        if mirror:
            x1, x2 = SIDE - x2, SIDE - x1
        out["box"][row] = x1, down * (y1 - window.top), x2, down * (y2 - window.top)


def agrees(batch):
    """Whether the white pixels of each image are those of its box."""
    for pixels, box in zip(batch["images"], batch["box"].tolist(), strict=True):
        x1, y1, x2, y2 = (min(max(place, 0), SIDE) for place in box)
        white = (pixels[0].double() / 255).numpy()
        assert white.sum() == pytest.approx((x2 - x1) * (y2 - y1), abs=float(0.1 * SIDE + 0.05 * white.sum()))
        if white.sum() > 20:
            rows, columns = (white.sum(axis) / white.sum() @ (np.arange(SIDE) + 0.5) for axis in (1, 0))
            assert (columns, rows) == pytest.approx(((x1 + x2) / 2, (y1 + y2) / 2), abs=1.0)


@pytest.mark.parametrize("resize", ["antialias", "linear"])
@pytest.mark.parametrize("kind", ["random_sized", "rand_scale", "pad_crop", "squash", "none"])
def test_a_box_holds_the_same_after_every_crop(kind, resize):
    config = DataConfig(
        "x", 8, 0, input_size=SIDE, val_resize=56, type_of_data_aug=kind, rand_scale=(50, 70), pad=6, resize=resize
    )
    loader = TrainLoader(Marked(), config, 0, 0, 1, torch.device("cpu"), FirstBox())
    for epoch in range(3):
        for batch in loader.epoch(epoch):
            agrees(batch)


@pytest.mark.parametrize("crop", [40, 48, 70, "squash"])  # below the crop there is a black frame
def test_a_box_holds_the_same_in_evaluation(crop):
    how = {"val_crop": crop} if crop == "squash" else {"val_resize": crop}
    config = DataConfig("x", num_workers=0, input_size=SIDE, val_batch_size=7, **how)
    for batch in EvalLoader(Marked(), config, 0, 1, torch.device("cpu"), FirstBox()):
        agrees(batch)


def test_the_centre_window_by_hand():
    # 100 x 50 pixels resized by 2 to 200 x 100; of these the crop of 80 starts 60 down and 10 across.
    assert center_window((100, 50), 100, 80) == (30, 5, 40, 40)
    # Resized to 40 x 20, the crop of 60 has 10 rows and 20 columns of black before them.
    assert center_window((100, 50), 20, 60) == (-25, -50, 150, 150)
