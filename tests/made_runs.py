"""Run folders as training leaves them, without training: untrained networks, and a log of made-up numbers."""

import json
from dataclasses import asdict, replace

import numpy as np
import small_detection
import torch
from dataset_helpers import image_bytes
from splits import write_split

from dataset.loader import DataConfig
from dataset.store.record import Record
from knowledge_distiller import Term
from models.zoo import NetworkConfig, build_network
from recipe import Recipe
from teachers import TeacherConfig
from training.optimizer import OptimConfig
from training.phases import Phase
from training.settings import TrainConfig

CLASSES = ("<script>alert(1)</script>", "a & b", "\"c\" 'd'")
KEY = "<img src=x onerror=alert(1)>"
HARD = {"single_label": "cross_entropy", "multi_label": "bce", "detection": "detection"}
STEPS, EPOCHS = 5, 3


def write_data(folder, task):
    """lmdb/train and lmdb/val of 12 images each."""
    if task == "detection":
        return small_detection.write_data(folder)
    for seed, split in enumerate(("train", "val")):
        targets = [n % 3 if task == "single_label" else ((), (n % 3,), (0, n % 2 + 1))[n % 3] for n in range(12)]
        images = [Record(f"{KEY}/{split}{n}.jpg", image_bytes(20 * seed + n, 40, 36), t) for n, t in enumerate(targets)]
        kind = "single" if task == "single_label" else "multi"
        write_split(folder / "lmdb" / split, images, target=kind, classes=CLASSES, size=(40, 36))
    return folder


def write_run(folder, data, name="run_0", *, task="single_label", seed=0, teacher=True, terms=None, epochs=EPOCHS):
    """A run of some epochs of EPOCHS, whose best student and teacher are untrained networks."""
    path = folder / name
    path.mkdir(parents=True)
    detects = task == "detection"
    network = small_detection.network("fasterrcnn") if detects else NetworkConfig("cifar_resnet8")
    classes = small_detection.CLASSES if detects else CLASSES
    write_weights(path / "best.pt", network, classes, seed)
    taught = {}
    if teacher:
        weights = folder / f"teacher_{task}.pt"
        if not weights.exists():
            write_weights(weights, network, classes, 77)
        taught = {"teacher": TeacherConfig(network.name, str(weights), detector=network.detector)}
    terms = terms or ({"kd": Term("kd", 0.5)} if teacher else {})
    recipe = Recipe(
        name=name,
        task=task,
        data=DataConfig(str(data / "lmdb"), 4, num_workers=0, input_size=32, val_resize=32, val_batch_size=5),
        student=network,
        teachers=taught,
        phases={"training": Phase(EPOCHS, {"hard": Term(HARD[task]), **terms}, OptimConfig())},
        train_params=TrainConfig(output_path=str(folder), seed=seed),
    )
    if detects:
        shown = {"type_of_data_aug": "short_side", "short_sides": (56,), "val_crop": "short_side", "val_resize": 56}
        recipe = replace(recipe, data=replace(recipe.data, **shown))
    (path / "config.json").write_text(json.dumps(asdict(recipe)))
    facts = {"classes": list(classes), "images": STEPS * 4, "sha256": "ab" * 32}
    (path / "facts.json").write_text(json.dumps({"data": {"train": facts, "val": facts}}))
    known = {
        "command": ["train.py", "a=<b>"],
        "python": "3.11",
        "ranks": 1,
        "devices": ["cpu"],
        "hosts": ["<i>here</i>"],
    }
    (path / "environment.json").write_text(json.dumps({**known, "versions": {"torch": "2"}}))
    (path / "metrics.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in log(task, [*terms], seed, epochs)))
    if task != "single_label":
        count = "objects" if detects else "positives"
        rows = [f'"{one}",4,0,{40 + seed + n}.5' for n, one in enumerate(one.replace('"', '""') for one in classes)]
        (path / "per_class.csv").write_text("\n".join([f"class,{count},ignored,AP", *rows, "mean,,,40.5", ""]))
    return path


def write_weights(path, network, classes, seed):
    """Those of an untrained network."""
    torch.manual_seed(seed)
    built = build_network(network, len(classes), side=32, classes=classes)
    torch.save(built.network.state_dict(), path)


def log(task, terms, seed, epochs):
    """Rows of training, two an epoch, and of validation."""
    random = np.random.default_rng(seed)
    primary = {"single_label": "top1", "multi_label": "mAP", "detection": "AP"}[task]
    for epoch in range(1, epochs + 1):
        for step in (2, 5):
            done = STEPS * (epoch - 1) + step
            values = {"hard": 2 / done, **dict.fromkeys(terms, 50 / done)}
            shares = {f"time/{part}": 0.2 for part in ("data", "student", "teacher", "read", "decode")}
            place = {"epoch": epoch, "step": done, "lr": 0.1 / epoch, "loss": 100 / done**2}
            ends = {"images_per_second": 40.0, "data_wait": 0.1, **shares, "seconds": 2.0 * done, **time_at(done)}
            yield {"kind": "train", **place, **values, **ends}
        done = STEPS * epoch
        scores = {
            primary: 20.0 * epoch + random.random(),
            f"{primary}50": 30.0 * epoch,
            "loss": 3 / epoch,
            "images": 12,
        }
        yield {"kind": "val", "epoch": epoch, "step": done, **scores, "seconds": 2.0 * done, **time_at(done)}


def time_at(step):
    """When a line was written."""
    return {"time": f"2026-01-01T00:00:{2 * step:02d}+00:00"}
