"""Real COCO and VOC photos, where they are at hand: packed, and learned for an epoch."""

import os
from pathlib import Path

import pytest

from benchmarks.few_photos import PHOTOS, learned

DATA = Path(os.environ.get("LIMBECK_DATA", "../shared/data"))


@pytest.mark.parametrize("name", PHOTOS)
def test_photos_are_packed_and_learned(name, tmp_path):
    if not (DATA / name).exists():
        pytest.skip(f"no {name} at {DATA}: set LIMBECK_DATA")
    scores = learned(DATA / name, tmp_path, 1)
    assert scores["images"] == {"coco_subset": 40, "voc2007_subset": 57}[name]
    assert 0 < scores["mAP"] <= 100
