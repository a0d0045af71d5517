"""Images/s of loaders of detectors over the same photos with boxes, interleaved in one run.

    pip install -e '.[dev]'
    OMP_NUM_THREADS=1 python -m benchmarks.detection_loader [--data /data/coco ...] [--batch 2] [--workers 0 2] \\
        [--rounds 5] [--copies 5]

The training view of Faster R-CNN: the whole photo with a random short side of 480 to 800 pixels and at most 1333 on the
long side, half of them mirrored, its boxes moved along, at the top left of a canvas of zeros whose sides are multiples
of 32. All loaders show the same batches, which are of similar shapes; sizes and mirrors each draws for itself.

- torchvision, the design of its detection references: CocoDetection with PIL, transforms v2 to float32, and
  GeneralizedRCNNTransform, which normalises, resizes in float32 and fills canvases. It is of the network there, which
  may stand on a GPU; here it has the training process's core. It resizes without antialiasing, as all but PIL do.
- PIL and OpenCV, the design of Detectron2's loader without a framework: decode, resize and mirror bytes, fill canvases.
- Limbeck: uint8, as the trainer has it; and normalised, with zeros around images, as its detectors do it on a device.

All but those called uint8 give float32 that is normalised. With 0 workers each loader decodes in its training process,
on one core; with more, on that many cores, which the training process shares. Rounds go through the loaders in turn,
and the median counts. Milliseconds are those that a loader's processes had of the cores: they are right on a busy
machine too.

The data are folders of COCO's layout, or of VOC's devkit: the first 200 training photos of each, --copies times.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from statistics import median
from typing import Literal, NamedTuple

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler
from torchvision.datasets import CocoDetection, wrap_dataset_for_transforms_v2
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.transforms import v2

import tasks
from benchmarks.common import check_counts, run, show
from benchmarks.loader import in_turn
from benchmarks.packed_boxes import PHOTOS
from benchmarks.peers import Epochs, one_thread
from dataset.config import STEP, DataConfig
from dataset.feed import order
from dataset.feed.batch import Batch
from dataset.loader import TrainLoader, open_split
from models.zoo import Network, NetworkConfig, build_network
from teachers import scene_of
from utils.console import exit_with_its_code
from utils.errors import UsageError

SIDES, LONGEST = range(480, 801, 32), 1333  # of the short side, and most of the long one
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
MOST = 200  # photos of a folder


@exit_with_its_code
def main() -> None:
    """Pack, measure and print."""
    options = parse()
    for data in options.data:
        folder = prepare(data, options.work / f"{data.resolve().name}_{options.copies}", options.copies)
        for workers in options.workers:
            for row in measure(folder, options.batch, workers, options.rounds):
                show("detection_loader", {"photos": data.name, **row})


def measure(folder: Path, batch: int, workers: int, rounds: int) -> list[dict[str, object]]:
    """One row for each loader: images/s and milliseconds of an image, medians, and ratios to torchvision's."""
    images = len(coco_images(folder))
    images -= images % batch
    loaders = {name: partial(_started, name, folder, batch, workers) for name in LOADERS}
    taken = in_turn(loaders, workers, rounds, f"{folder.name}, {workers} workers")
    seconds = {name: [one.seconds for one in times] for name, times in taken.items()}
    worked = {name: median(one.worked for one in times) for name, times in taken.items()}
    first = next(iter(taken))
    return [
        {
            "loader": name,
            "batch": batch,
            "workers": workers,
            "images_per_second": round(images / median(times), 1),
            "ratio": round(median(seconds[first]) / median(times), 2),
            "slowest_and_fastest_round": [round(images / max(times), 1), round(images / min(times), 1)],
            "core_milliseconds": round(1000 * worked[name] / images, 1),
            "core_ratio": round(worked[first] / worked[name], 2),
        }
        for name, times in seconds.items()
    ]


class Shown(NamedTuple):
    """A batch of B images.

    Attributes:
        images: [B, 3, H, W], uint8 or float32.
        boxes: of each image, [N, 4], x1, y1, x2, y2 in pixels of the canvas.
        numbers: of the images, int64 [B].
    """

    images: Tensor
    boxes: Sequence[Tensor]
    numbers: Tensor


def limbeck(
    folder: Path, batch: int, workers: int, *, normalised: bool, decode: Literal["planes", "exact"] = "planes"
) -> Epochs:
    """This project's training batches, as `train_with_distillation.py` uses them."""
    config = DataConfig(
        str(folder / "lmdb"),
        batch_size=batch,
        num_workers=workers,
        type_of_data_aug="short_side",
        val_crop="short_side",
        decode=decode,
    )
    samples = open_split(config, "train", "lmdb")
    targets = tasks.get("detection").targets(samples.classes)
    loader = TrainLoader(samples, config, 0, 0, 1, torch.device("cpu"), targets)
    detector = build_network(NetworkConfig("fasterrcnn_cifar_resnet8_fpn"), len(samples.classes))
    show_batch = partial(_normalised, detector) if normalised else _as_it_is
    return lambda epoch: map(show_batch, loader.epoch(epoch))


def _as_it_is(batch: Batch) -> Shown:
    boxes, classes = batch["boxes"], batch["classes"]
    return Shown(batch["images"], [box[known >= 0] for box, known in zip(boxes, classes)], batch["index"])


def _normalised(detector: Network, batch: Batch) -> Shown:
    return _as_it_is(batch)._replace(images=detector.normalize(batch["images"], scene_of(batch)))


def torchvision_reference(folder: Path, batch: int, workers: int) -> Epochs:
    """torchvision's design; normalised."""
    steps = [v2.ToImage(), v2.RandomHorizontalFlip(), v2.ToDtype(torch.float32, scale=True)]
    steps += [v2.SanitizeBoundingBoxes(), v2.ToPureTensor()]
    with redirect_stdout(sys.stderr):  # pycocotools prints
        photos = CocoDetection(str(folder / "train2017"), str(annotation_file(folder)), transforms=v2.Compose(steps))
    samples = wrap_dataset_for_transforms_v2(photos, target_keys=("image_id", "boxes", "labels"))
    loader = batches(samples, folder, batch, workers, _apart)
    resize = GeneralizedRCNNTransform(tuple(SIDES), LONGEST, MEAN, STD)

    def epoch(number: int) -> Iterator[Shown]:
        for images, targets in loader(number):
            canvases, moved = resize(images, targets)
            ids = torch.tensor([target["image_id"] for target in moved])
            yield Shown(canvases.tensors, [target["boxes"] for target in moved], ids)

    return epoch


def _apart(samples: list[tuple[Tensor, dict]]) -> tuple[list[Tensor], list[dict]]:
    return [image for image, _ in samples], [target for _, target in samples]


def plain(folder: Path, batch: int, workers: int, library: Literal["PIL", "OpenCV"]) -> Epochs:
    """Decoded and resized bytes on canvases; uint8."""
    return batches(Plain(folder, library), folder, batch, workers, _canvases)


class Plain(Dataset):
    """Photos resized and mirrored, uint8 [H, W, 3], with boxes [N, 4] and their numbers."""

    def __init__(self, folder: Path, library: Literal["PIL", "OpenCV"]) -> None:
        values = json.loads(annotation_file(folder).read_text())
        self._paths = [str(folder / "train2017" / image["file_name"]) for image in values["images"]]
        boxes: list[list[list[float]]] = [[] for _ in self._paths]
        for entry in values["annotations"]:
            x, y, width, height = entry["bbox"]
            boxes[entry["image_id"]].append([x, y, x + width, y + height])
        self._boxes = [torch.tensor(some).view(-1, 4) for some in boxes]
        self._library = library

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor, int]:
        side, mirror = random.choice(SIDES), random.random() < 0.5
        show_photo = _by_pil if self._library == "PIL" else _by_opencv
        pixels, scale = show_photo(self._paths[number], side, mirror)
        boxes = self._boxes[number] * torch.tensor([*scale, *scale])
        if mirror:
            boxes[:, [0, 2]] = pixels.shape[1] - boxes[:, [2, 0]]
        return torch.from_numpy(pixels), boxes, number


def _by_pil(path: str, side: int, mirror: bool) -> tuple[np.ndarray, tuple[float, float]]:
    """The pixels, and what x and y are multiplied with."""
    with Image.open(path) as file:
        image = file.convert("RGB")
    resized = image.resize(_resized(image.width, image.height, side), Image.Resampling.BILINEAR)
    if mirror:
        resized = resized.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return np.array(resized), (resized.width / image.width, resized.height / image.height)


def _by_opencv(path: str, side: int, mirror: bool) -> tuple[np.ndarray, tuple[float, float]]:
    """The same."""
    pixels = cv2.imread(path, cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)
    assert pixels is not None
    height, width = pixels.shape[:2]
    wide, high = _resized(width, height, side)
    resized = cv2.resize(pixels, (wide, high))
    return cv2.flip(resized, 1) if mirror else resized, (wide / width, high / height)


def _resized(width: int, height: int, side: int) -> tuple[int, int]:
    scale = min(side / min(width, height), LONGEST / max(width, height))
    return int(width * scale), int(height * scale)


def _canvases(samples: list[tuple[Tensor, Tensor, int]]) -> Shown:
    pixels, boxes, numbers = zip(*samples)
    high, wide = (-(-max(one.shape[axis] for one in pixels) // STEP) * STEP for axis in (0, 1))
    canvases = torch.zeros(len(pixels), high, wide, 3, dtype=torch.uint8)
    for canvas, one in zip(canvases, pixels):
        canvas[: one.shape[0], : one.shape[1]] = one
    return Shown(canvases.permute(0, 3, 1, 2), boxes, torch.tensor(numbers))


def batches(samples: Dataset, folder: Path, batch: int, workers: int, collate: Callable) -> Callable[[int], DataLoader]:
    """A torch DataLoader over ``samples`` in Limbeck's order; a function of the epoch's number."""
    sampler = InShapes([(image["height"], image["width"]) for image in coco_images(folder)], batch)
    loader = DataLoader(
        samples,
        batch_sampler=sampler,
        num_workers=workers,
        persistent_workers=workers > 0,
        worker_init_fn=one_thread,
        collate_fn=collate,
    )

    def epoch(number: int) -> DataLoader:
        sampler.epoch = number
        return loader

    return epoch


class InShapes(Sampler):
    """Batches of images of similar shapes; sizes: height and width of each."""

    epoch = 0

    def __init__(self, sizes: list[tuple[int, int]], batch: int) -> None:
        self._sizes, self._batch = np.array(sizes), batch

    def __iter__(self) -> Iterator[list[int]]:
        whole = order.epoch_order(0, self.epoch, [len(self._sizes)])
        whole = order.by_shape(whole, self._sizes, self._batch)
        return (places.tolist() for places in order.training_batches(whole, self._batch, 0, 1))


# torchvision's first: the others are ratios to it.
LOADERS: dict[str, Callable[[Path, int, int], Epochs]] = {
    "torchvision's references": torchvision_reference,
    "PIL, uint8": partial(plain, library="PIL"),
    "OpenCV, uint8": partial(plain, library="OpenCV"),
    "Limbeck, uint8": partial(limbeck, normalised=False),
    "Limbeck": partial(limbeck, normalised=True),
    "Limbeck, decode=exact": partial(limbeck, normalised=True, decode="exact"),
}


def _started(name: str, folder: Path, batch: int, workers: int) -> Epochs:
    return LOADERS[name](folder, batch, workers)


def prepare(data: Path, folder: Path, copies: int) -> Path:
    """Write photos of ``data``, each ``copies`` times, to ``folder`` as COCO has them, and pack them; returns it."""
    kind = "voc2007_subset" if (data / "VOCdevkit").exists() else "coco_subset"
    photos = [*PHOTOS[kind][2](data, "train").values()][:MOST] * copies
    names = sorted({one.name for photo in photos for one in photo.objects})
    images, objects = list[dict[str, object]](), list[dict[str, object]]()
    (folder / "train2017").mkdir(parents=True, exist_ok=True)
    annotation_file(folder).parent.mkdir(exist_ok=True)
    for number, photo in enumerate(photos):
        (height, width), name = photo.size, f"{number:06d}.jpg"
        shutil.copyfile(photo.file, folder / "train2017" / name)  # a link to another file would count once
        images.append({"id": number, "file_name": name, "height": height, "width": width})
        for one in photo.objects:
            x1, y1, x2, y2 = one.box
            place = {"bbox": [x1, y1, x2 - x1, y2 - y1], "area": one.area, "iscrowd": int(one.crowd)}
            place |= {"id": len(objects) + 1, "image_id": number, "category_id": names.index(one.name) + 1}
            objects.append(place)
    categories = [{"id": number, "name": name} for number, name in enumerate(names, 1)]
    values = {"images": images, "annotations": objects, "categories": categories}
    annotation_file(folder).write_text(json.dumps(values))
    paths = ["--image_path", str(folder), "--output_path", str(folder / "lmdb")]
    run("dataset/coco2lmdb.py", *paths, "--year", "2017", "--split", "train", "--boxes")
    return folder


def annotation_file(folder: Path) -> Path:
    """COCO's file of a prepared folder."""
    return folder / "annotations" / "instances_train2017.json"


def coco_images(folder: Path) -> list[dict[str, int]]:
    """The images of a prepared folder."""
    return json.loads(annotation_file(folder).read_text())["images"]


def parse() -> argparse.Namespace:
    """The command line.

    Raises:
        UsageError: there are no photos, or an option counts less than one.
    """
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    root = Path(os.environ.get("LIMBECK_DATA", "../shared/data"))
    made.add_argument("--data", type=Path, nargs="+", default=[root / name for name in PHOTOS], help="COCO's or VOC's")
    made.add_argument("--work", type=Path, default=Path("runs", "benchmark_detection_loader"), help="for packed copies")
    made.add_argument("--batch", type=int, default=2, help="images of a batch")
    made.add_argument("--workers", type=int, nargs="+", default=[0, 2], help="decoding processes")
    made.add_argument("--rounds", type=int, default=5, help="each measures every loader once; the median counts")
    made.add_argument("--copies", type=int, default=5, help="times that each photo appears in an epoch")
    options = made.parse_args()
    for data in options.data:
        if not ((data / "annotations").exists() or (data / "VOCdevkit").exists()):
            raise UsageError(f"--data {data}: no annotations/ of COCO and no VOCdevkit/; give a folder with either")
    check_counts(batch=options.batch, rounds=options.rounds, copies=options.copies)
    return options


if __name__ == "__main__":
    main()
