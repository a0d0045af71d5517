"""Original ImageNet photos, where they are at hand: set LIMBECK_DATA to the folder that holds imagenet200/."""

import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision import transforms

from benchmarks.real_photos import pack_originals
from dataset.feed.crops import center_axes
from dataset.jpeg.tiles import tile
from dataset.jpeg.views import show_exact

PHOTOS = Path(os.environ.get("LIMBECK_DATA", "../shared/data")) / "imagenet200"
pytestmark = pytest.mark.skipif(not PHOTOS.exists(), reason=f"no real photos at {PHOTOS}: set LIMBECK_DATA")


def test_every_photo_is_packed_without_loss_under_its_label(tmp_path):
    result = pack_originals(PHOTOS, tmp_path)
    counts = {name: value for name, value in result.items() if not name.endswith("_bytes")}
    assert set(counts.values()) == {200}, result
    assert result["tiled_bytes"] < 1.015


def test_evaluation_pixels_equal_torchvision():
    """Tolerance 0: gray, 4:2:0 to 4:4:4, with and without EXIF orientation."""
    out, spent = np.empty((224, 224, 3), np.uint8), np.zeros(2, np.int64)
    transform = transforms.Compose([transforms.Resize(256), transforms.CenterCrop(224)])
    for path in sorted(PHOTOS.glob("images/*/*.JPEG"))[::4]:
        data = path.read_bytes()
        image = Image.open(io.BytesIO(data)).convert("RGB")
        expected = np.asarray(transform(image))
        (axes,), (place,) = center_axes(np.array([image.size[::-1]]), 256, 224)
        for kept in (data, tile(data)):
            show_exact(kept, axes, place, out, spent, how="antialias", halve=False)
            assert np.array_equal(out, expected), path.name
