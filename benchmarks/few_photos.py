"""Real COCO and VOC photos through their packers, then a small network that learns them by heart; a JSON line each.

    python -m benchmarks.few_photos [--data FOLDER] [--epochs N]

mAP is on the photos that are trained on: near 100 shows that images, labels, loss and scores go together.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

from benchmarks.common import check_counts, run, show
from training.run_folder import RunFolder
from utils.console import exit_with_its_code
from utils.errors import UsageError

PHOTOS = {  # folder of photos, and how it is packed
    "coco_subset": ("dataset/coco2lmdb.py", "--year", "2017"),
    "voc2007_subset": ("dataset/voc2lmdb.py", "--year", "2007"),
}
_SHOWN = ("mAP", "CF1", "OF1", "images", "epoch")


@exit_with_its_code
def main() -> None:
    """Pack and learn both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data = Path(os.environ.get("LIMBECK_DATA", "../shared/data"))
    parser.add_argument("--data", type=Path, default=data, help="holds coco_subset/ and voc2007_subset/")
    parser.add_argument("--epochs", type=int, default=45, help="default: 45")
    options = parser.parse_args()
    check_counts(epochs=options.epochs)
    for name in PHOTOS:
        if not (options.data / name).exists():
            raise UsageError(f"{options.data / name} is missing: set LIMBECK_DATA to the data folder, or give --data")
    with tempfile.TemporaryDirectory() as work:
        for name in PHOTOS:
            show("few_photos", {"photos": name, **learned(options.data / name, Path(work, name), options.epochs)})


def learned(photos: Path, work: Path, epochs: int) -> dict[str, object]:
    """The best scores of a network trained on ``photos``, on these."""
    tool, *words = PHOTOS[photos.name]
    run(tool, "--image_path", str(photos), "--output_path", str(work / "lmdb"), "--image_size", "64", *words)
    given = [f"data.data_path={work / 'lmdb'}", f"train_params.output_path={work}", f"epochs={epochs}"]
    run("train_with_distillation.py", "--cfg", "configs/few_photos.py", *given)
    scores = RunFolder(work / "few_photos").best_scores()
    return {key: round(scores[key], 2) for key in _SHOWN}


if __name__ == "__main__":
    main()
