"""Images/s of nvJPEG on the windows of training crops, beside the loader on all cores, in one run.

    python -m benchmarks.gpu_decode [--data FOLDER] [--copies 20] [--batch 256] [--rounds 5]

    loader    packed photos to uint8 batches of 224 x 224 pixels on the device, with a decoding process a core
    nvjpeg    torchvision's decoder on the device alone, of windows that are JPEG files of their own in memory. Reading,
              cutting and resizing are not counted, so a loader with this decoder is slower than that

Where `nvjpeg` is not the faster one, decoding on the GPU would only take time from the networks. Without a GPU the same
decoder runs on the CPU, which proves the command and nothing else.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from statistics import median

import numpy as np
import torch
from torchvision import io as vision_io

from benchmarks.common import parsed, parser, show
from benchmarks.peers import prepare
from dataset.feed.crops import random_resized_crop, uniform
from dataset.jpeg.decode import decode_window
from dataset.jpeg.images import encode
from dataset.loader import DataConfig, TrainLoader, open_split
from dataset.store.samples import Samples
from utils.console import exit_with_its_code, progress

SIDE, QUALITY = 224, 90


@exit_with_its_code
def main() -> None:
    """Pack, measure both in turn, and print."""
    made = parser(__doc__, "benchmark_gpu_decode")
    made.add_argument("--copies", type=int, default=20, help="of each photo in an epoch (default: 20)")
    made.add_argument("--batch", type=int, default=256, help="images decoded together (default: 256)")
    options = parsed(made)
    prepare(options)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    cores = len(os.sched_getaffinity(0))
    config = DataConfig(str(options.work / "lmdb"), batch_size=options.batch, input_size=SIDE, num_workers=cores)
    samples = open_split(config, "train", "lmdb")
    loader = TrainLoader(samples, config, seed=0, rank=0, world=1, device=device)
    windows = windows_of(samples, options.batch)

    def load(epoch: int) -> int:
        return sum(len(batch["labels"]) for batch in loader.epoch(epoch))

    def decode(_epoch: int) -> int:
        return sum(len(decoded(batch, device)) for batch in windows)

    rates: dict[str, list[float]] = {"loader": [], "nvjpeg": []}
    works: dict[str, Callable[[int], int]] = {"loader": load, "nvjpeg": decode}
    for epoch in progress(iterable=range(options.rounds + 1), desc="rounds", unit="round"):
        for row, work in works.items():
            began = time.perf_counter()
            images = work(epoch)
            if device.type == "cuda":
                torch.cuda.synchronize()
            rates[row].append(images / (time.perf_counter() - began))
    loader.close()
    rate = {row: median(found[1:]) for row, found in rates.items()}  # the first begins
    for row, found in rates.items():
        shown = {
            "decoder": row,
            "images_per_second": round(rate[row]),
            "ratio": round(rate[row] / rate["loader"], 2),
            "slowest_and_fastest_round": [round(min(found[1:])), round(max(found[1:]))],
            "device": name,
        }
        show("gpu_decode", shown)


def decoded(windows: list[torch.Tensor], device: torch.device) -> list[torch.Tensor]:
    """JPEG files, uint8 [bytes] each, to pixels on the device, uint8 [3, H, W] each."""
    return vision_io.decode_jpeg(windows, mode=vision_io.ImageReadMode.RGB, device=device)


def windows_of(samples: Samples, batch: int) -> list[list[torch.Tensor]]:
    """The windows of an epoch's crops, as JPEG files of the quality of photos, in whole batches."""
    assert samples.sizes is not None  # as of all packed photos
    index = np.arange(len(samples))
    crops = random_resized_crop(uniform(0, 0, index, 40), samples.sizes, (0.08, 1.0), (3 / 4, 4 / 3))
    files = []
    for number, window in enumerate(progress(iterable=crops.tolist(), desc="windows", unit="image")):
        pixels = decode_window(bytes(samples.read(number).image), tuple(window))
        files.append(torch.frombuffer(bytearray(encode(pixels, quality=QUALITY)), dtype=torch.uint8))
    return [files[start : start + batch] for start in range(0, len(files) - batch + 1, batch)]


if __name__ == "__main__":
    main()
