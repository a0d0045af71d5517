"""Real COCO and VOC photos with boxes through their packers, then small detectors that learn them by heart.

    python -m benchmarks.few_boxes [--data FOLDER] [--weights FILE] [--detectors fasterrcnn retinanet] [--steps N]

A JSON line for each set of photos and detector. AP50 is on the photos that are trained on: near 100 shows that images,
boxes, anchors, losses, detections and scores go together.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from itertools import product
from pathlib import Path

from benchmarks.common import check_counts, run, show
from benchmarks.few_photos import PHOTOS
from dataset.store.index import Index
from training.run_folder import RunFolder
from utils.console import exit_with_its_code
from utils.errors import UsageError

DETECTORS = ("fasterrcnn", "retinanet", "fcos")
_SHOWN = ("AP50", "AP", "AP75", "images", "epoch")


@exit_with_its_code
def main() -> None:
    """Pack both sets of photos, and learn each by every detector."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data = Path(os.environ.get("LIMBECK_DATA", "../shared/data"))
    parser.add_argument("--data", type=Path, default=data, help="holds coco_subset/ and voc2007_subset/")
    parser.add_argument("--weights", type=Path, help="MobileNetV2 state dict (default: ../weights beside the data)")
    parser.add_argument("--detectors", nargs="+", choices=DETECTORS, default=DETECTORS[:2])
    parser.add_argument("--steps", type=int, default=1600, help="of two photos each, about (default: 1600)")
    options = parser.parse_args()
    check_counts(steps=options.steps)
    weights = options.weights or options.data.parent / "weights" / "imagenet_mobilenet_v2.pth"
    for path in (*(options.data / name for name in PHOTOS), weights):
        if not path.exists():
            raise UsageError(f"{path} is missing: set LIMBECK_DATA to the data folder, or give --data and --weights")
    with tempfile.TemporaryDirectory() as work:
        for name in PHOTOS:
            tool, *words = PHOTOS[name]
            run(tool, "--image_path", str(options.data / name), "--output_path", f"{work}/{name}", "--boxes", *words)
        for name, detector in product(PHOTOS, options.detectors):
            scores = learned(Path(work, name), detector, weights.resolve(), options.steps)
            show("few_boxes", {"photos": name, "detector": detector, **scores})


def learned(packed: Path, detector: str, weights: Path, steps: int) -> dict[str, object]:
    """The best scores of a detector trained on ``packed`` photos, on these."""
    runs, an_epoch = packed / "runs", Index.read(packed / "train").records // 2
    words = [f"detector={detector}", f"weights={weights}", f"epochs={max(1, round(steps / an_epoch))}"]
    run(
        *("train_with_distillation.py", "--cfg", "configs/few_boxes.py", *words),
        *(f"data.data_path={packed}", f"train_params.output_path={runs}"),
    )
    scores = RunFolder(runs / f"few_boxes_{detector}").best_scores()
    return {key: round(scores[key], 2) for key in _SHOWN}


if __name__ == "__main__":
    main()
