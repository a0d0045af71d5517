"""Bytes and losses of the layouts of stored teacher outputs, on views of real photos by a real ImageNet teacher.

    python -m benchmarks.stored_layouts [--data FOLDER] [--weights FILE] [--views 20] [--work FOLDER]

A JSON line for each layout: bytes a view, with the prior's share where 100 epochs are stored; gigabytes for ImageNet
(1,281,167 images) of so many epochs; divergence KL(true || restored) in nats and total variation at T = 1, 2 and 4,
means over the views that the prior was not made of; views/s that one core decodes and encodes by the time that it works
on them, medians of --rounds, for which all layouts take turns. TinyViT's layout is the peer, `kl_ratio` what is lost
over what it loses. A plot of KL over bytes, and the logits, which other calls read again, are written to --work.

The teacher is MobileNetV2; the views are those of a training run: crops of 224 pixels as by RandomResizedCrop, mirrored
or not, of as many epochs as --views says.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from itertools import product
from pathlib import Path
from statistics import median

import matplotlib.pyplot as plt
import torch
from torch import Tensor

from benchmarks.common import cores, files_below, parsed, parser, run, show
from dataset.loader import DataConfig, TrainLoader, open_split
from models.zoo import NetworkConfig, build_network
from stored.layouts import Layout, LayoutConfig, layout_of, prior_of
from utils.console import exit_with_its_code, progress
from utils.errors import UsageError

IMAGES, EPOCHS = 1_281_167, 100  # of ImageNet, and of what is stored
CLASSES, SIDE = 1000, 224
TEMPERATURES = (1, 2, 4)
_MEAN = _STD = (0.5, 0.5, 0.5)  # of the teacher's input
_CONFIGS = {
    **{f"prior {k}": LayoutConfig("prior", k=k) for k in (5, 11, 20)},
    **{f"topk {k}": LayoutConfig("topk", k=k) for k in (10, 20, 50, 100)},
    "all float32": LayoutConfig("all", type="float32"),
    "all float16": LayoutConfig("all", type="float16"),
    "all int8": LayoutConfig("all", type="int8"),
}
PEER = "TinyViT's 10"


@exit_with_its_code
def main() -> None:
    """Measure, print and draw."""
    options = parse()
    logits, labels = logits_of(options)
    classes = logits.shape[-1]
    known = {name: layout_of(config, classes, competing=True) for name, config in _CONFIGS.items()}
    layouts = {PEER: TinyVit(), **known}
    with cores(1):
        rows = measure(layouts, logits, labels, options.rounds)
    for row in rows:
        show("stored_layouts", row)
    draw(rows, options.work / "stored_layouts.png")


def parse() -> argparse.Namespace:
    """The command line."""
    made = parser(__doc__, "benchmark_stored_layouts")
    beside = Path(os.environ.get("LIMBECK_DATA", "../shared/data")).parent
    weights = beside / "weights" / "imagenet_mobilenet_v2.pth"
    made.add_argument("--weights", type=Path, default=weights, help="MobileNetV2 state dict")
    made.add_argument("--views", type=int, default=20, help="of each photo; the first 8 make the prior (default: 20)")
    options = parsed(made)
    if options.views <= LayoutConfig.views:
        raise UsageError(f"--views {options.views}: above {LayoutConfig.views}, of which the prior is made")
    if not options.weights.is_file():
        raise UsageError(f"{options.weights} is missing: give --weights a state dict of torchvision's mobilenet_v2")
    return options


class TinyVit(Layout):
    """TinyViT's (Wu et al., ECCV 2022, arXiv 2207.10666): the 10 largest probabilities in float16, their classes in
    int16, and the seed of the view; what they leave of 1 is spread evenly."""

    k = 10

    def size(self, classes: int) -> int:
        """4 bytes a class and 4 of the seed, which takes part in nothing here."""
        return 4 * self.k + 4

    def encode(self, logits: Tensor, labels: Tensor | None = None, prior: Tensor | None = None) -> Tensor:
        """float [n, K] -> uint8 [n, 44]."""
        largest = logits.softmax(1).topk(self.k, 1)
        seeds = torch.zeros(len(logits), 4, dtype=torch.uint8)
        parts = largest.values.half().view(torch.uint8), largest.indices.short().view(torch.uint8), seeds
        return torch.cat(parts, 1)

    def decode(self, records: Tensor, classes: int, prior: Tensor | None = None) -> Tensor:
        """uint8 [n, 44] -> log-probabilities float32 [n, K]."""
        middle = 2 * self.k
        kept = records[:, :middle].clone(memory_format=torch.contiguous_format).view(torch.float16).float()
        places = records[:, middle : 2 * middle].clone(memory_format=torch.contiguous_format).view(torch.int16).long()
        rest = (1 - kept.sum(1, keepdim=True)).clamp(min=1e-6) / (classes - self.k)
        return rest.log().repeat(1, classes).scatter_(1, places, kept.clamp(min=1e-8).log())


def logits_of(options: argparse.Namespace) -> tuple[Tensor, Tensor]:
    """The teacher's logits of every view, float32 [views, N, K], and the true classes, int64 [N].

    They are read from --work where an earlier call has left those of the same files.
    """
    facts = [f"{path.parent.name}/{path.name} {path.stat().st_size}" for path in files_below(options.data)]
    digest = hashlib.sha256(options.weights.read_bytes() + "\n".join(facts).encode()).hexdigest()[:12]
    kept = options.work / f"logits_{options.views}_{digest}.pt"
    if not kept.exists():
        options.work.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as work:
            pack(options.data, Path(work))
            torch.save(teach(Path(work, "lmdb"), options.weights, options.views), kept)
    both = torch.load(kept)
    return both["logits"], both["labels"]


def pack(data: Path, work: Path) -> None:
    """Pack the photos of ``data`` to ``work/lmdb`` under ImageNet's labels.

    Raises:
        UsageError: there are fewer classes, and no list of all.
    """
    (work / "images").mkdir()
    (work / "images" / "train").symlink_to(data.resolve())
    listing: list[str] = []
    if (names := data.parent / "synset_index.tsv").is_file():
        (work / "synsets.txt").write_text("".join(f"{row.split()[1]}\n" for row in names.read_text().splitlines()))
        listing = ["--class_list", str(work / "synsets.txt")]
    elif (found := len({path.parent for path in files_below(data)})) != CLASSES:
        raise UsageError(f"--data {data}: {found} class folders, and no {names} with the order of all {CLASSES:,}")
    images, lists = str(work / "images"), str(work / "lists")
    run("dataset/mk_img_list.py", "--image_path", images, "--output_path", lists, *listing)
    paths = ["--image_path", images, "--list_path", lists, "--output_path", str(work / "lmdb")]
    run("dataset/img2lmdb.py", *paths, "--split", "train")


@torch.inference_mode()
def teach(packed: Path, weights: Path, views: int) -> dict[str, Tensor]:
    """The logits of ``views`` epochs of the training split, [views, N, K], and the labels, [N]."""
    config = NetworkConfig("mobilenet_v2", str(weights.resolve()), mean=_MEAN, std=_STD)
    network = build_network(config, CLASSES).eval().to(memory_format=torch.channels_last)
    samples = open_split(DataConfig(str(packed)), "train", "lmdb")
    batch = max(size for size in range(1, 65) if len(samples) % size == 0)  # an epoch has whole batches alone
    data = DataConfig(str(packed), batch_size=batch, num_workers=0, input_size=SIDE)
    loader = TrainLoader(samples, data, seed=0, rank=0, world=1, device=torch.device("cpu"))
    logits, labels = torch.zeros(views, len(samples), CLASSES), torch.zeros(len(samples), dtype=torch.int64)
    for epoch in progress(iterable=range(views), desc="teacher", unit="epoch"):
        for one in loader.epoch(epoch):
            labels[one.index] = one.targets["labels"]
            logits[epoch, one.index] = network.predict(one.images["weak"]).logits
    return {"logits": logits, "labels": labels}


def measure(layouts: Mapping[str, Layout], logits: Tensor, labels: Tensor, rounds: int) -> list[dict[str, object]]:
    """One row for each layout, of the views that the prior was not made of.

    Args:
        layouts: by name; the first is the peer.
        logits: float32 [views, N, K].
        labels: int64 [N].
        rounds: of the measurements of speed.
    """
    left, classes = len(logits) - LayoutConfig.views, logits.shape[2]
    seen, labels = logits[-left:].flatten(0, 1), labels.repeat(left)
    prior = prior_of(logits[:-left]).repeat(left, 1)
    records = {name: layout.encode(seen, labels, prior) for name, layout in layouts.items()}
    restored = {name: layout.decode(records[name], classes, prior) for name, layout in layouts.items()}
    losses = {name: {t: loss(seen, decoded, t) for t in TEMPERATURES} for name, decoded in restored.items()}

    def decoding(name: str) -> Callable[[], object]:
        return lambda: layouts[name].decode(records[name], classes, prior)

    def encoding(name: str) -> Callable[[], object]:
        return lambda: layouts[name].encode(seen, labels, prior)

    decoded, encoded = (in_turn({name: way(name) for name in layouts}, rounds) for way in (decoding, encoding))
    peer = losses[next(iter(layouts))]
    rows: list[dict[str, object]] = []
    for name, layout in layouts.items():
        size = layout.size(classes) + classes * layout.needs_prior / EPOCHS
        lost = losses[name]
        rows.append(
            {
                "layout": name,
                "bytes_a_view": round(size, 1),
                "imagenet_100_epochs_gb": round(size * IMAGES * EPOCHS / 1e9, 2),
                "kl": {t: float(f"{kl:.3g}") for t, (kl, _) in lost.items()},
                "kl_ratio": {t: round(kl / peer[t][0], 3) for t, (kl, _) in lost.items()},
                "total_variation": {t: round(variation, 4) for t, (_, variation) in lost.items()},
                "decoded_views_per_second": round(len(seen) / decoded[name]),
                "encoded_views_per_second": round(len(seen) / encoded[name]),
                "views": len(seen),
            }
        )
    return rows


def loss(logits: Tensor, restored: Tensor, temperature: float) -> tuple[float, float]:
    """KL(true || restored) in nats and total variation of two logits [n, K], means over n, in float64."""
    kl = variation = 0.0
    for logp, logq in zip(*(_log_probabilities(one, temperature) for one in (logits, restored))):
        kl += (logp.exp() * (logp - logq)).sum().item()
        variation += (logp.exp() - logq.exp()).abs().sum().item() / 2
    return kl / len(logits), variation / len(logits)


def _log_probabilities(logits: Tensor, temperature: float) -> Iterator[Tensor]:
    return ((part.double() / temperature).log_softmax(1) for part in logits.split(256))


def in_turn(calls: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Seconds of a core's work that each takes: the median of ``rounds`` in turn, after one that warms up."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _, (name, call) in product(range(rounds + 1), calls.items()):
        start = time.process_time()
        call()
        seconds[name].append(time.process_time() - start)
    return {name: median(taken[1:]) for name, taken in seconds.items()}


def draw(rows: list[dict[str, object]], path: Path) -> None:
    """KL over bytes a view, a colour for each temperature and a mark for each kind of layout."""
    figure, axis = plt.subplots(figsize=(8, 5))
    colours = dict(zip(TEMPERATURES, ("tab:blue", "tab:orange", "tab:green"), strict=True))
    kinds = {"prior": "o", "topk": "s", "all": "^", "TinyViT's": "X"}
    for (kind, mark), temperature in product(kinds.items(), TEMPERATURES):
        points = [
            (row["bytes_a_view"], row["kl"][temperature])  # type: ignore[index]
            for row in rows
            if str(row["layout"]).split()[0] == kind and row["kl"][temperature] > 1e-6  # type: ignore[index]
        ]
        axis.plot(*zip(*points), color=colours[temperature], marker=mark, label=f"{kind}, T = {temperature}")
    axis.set(xscale="log", yscale="log", xlabel="bytes a view", ylabel="KL(true || restored), nats")
    axis.set_title("Stored outputs of an ImageNet MobileNetV2 (all in float16 loses less than 1e-6)")
    axis.grid(which="both", alpha=0.25)
    axis.legend(ncols=2, fontsize="small")
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)


if __name__ == "__main__":
    main()
