"""What the networks of runs give for validation images: each image is decoded once, and seen once by each network.

N images, K outputs of a network, C classes; O objects of an image, D detections.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

from dataset.class_names import names_for_people
from dataset.feed.targets import Labels, Objects, Present, Targets
from dataset.jpeg.decode import decode
from dataset.loader import DataConfig, EvalLoader, open_split
from dataset.store.samples import Samples
from figures.outputs import Detected, Truth, check_labelled, detected, student_of, truths
from figures.report.data import Run
from models.outputs import Scene
from models.zoo import NetworkConfig
from teachers import Live, TeacherConfig, averaged, build_teacher
from utils.config import restore
from utils.console import progress
from utils.errors import DataError, UsageError
from utils.text import printable

_TASKS = ("single_label", "multi_label", "detection")
_SHOWN_BY = (  # settings on which validation images depend
    *("data_path", "val_data_type", "val_split", "classes", "input_size", "decode", "val_crop", "val_resize"),
    "longest_side",
)
_QUALITY = 80  # of the pictures


class Picture(NamedTuple):
    """A stored image as it can stand in a page."""

    key: str
    size: tuple[int, int]  # width and height of the stored image, pixels
    shown: tuple[int, int]  # width and height of the JPEG
    url: str  # of the JPEG, which it holds


@dataclass(eq=False)
class Bench:
    """Validation images on which some runs are scored, and what networks give for them.

    Attributes:
        runs: those that are.
        task: theirs.
        classes: C names.
        index: int64 [N], number of each image in the split.
        of: images in the split.
        labels: int64 [N] of single-label data, int8 [N, C] of several labels, 1 present and -1 to be ignored; empty of
            detection.
        truth: N, of detection.
        logits: float32 [N, K] of each network, by its name; in detection none.
        found: of each network N, in detection.
        students: name of each run's network.
        teachers: names of those of each run that know all classes, by what the run calls them.
    """

    runs: list[Run]
    task: str
    classes: tuple[str, ...]
    samples: Samples
    threshold: float
    index: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    labels: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    truth: list[Truth] = field(default_factory=list)
    logits: dict[str, np.ndarray] = field(default_factory=dict)
    found: dict[str, list[Detected]] = field(default_factory=dict)
    students: dict[Path, str] = field(default_factory=dict)
    teachers: dict[Path, dict[str, str]] = field(default_factory=dict)

    @property
    def of(self) -> int:
        """Images in the split."""
        return len(self.samples)

    def taught_by(self, run: Run) -> np.ndarray | None:
        """Logits of the run's teachers, of several those of their mean probabilities; None without one that has the
        student's outputs.
        """
        shape = self.logits[self.students[run.path]].shape
        of_all = [self.logits[name] for name in self.teachers[run.path].values()]
        alike = [torch.from_numpy(one) for one in of_all if one.shape == shape]
        if len(alike) < 2:
            return alike[0].numpy() if alike else None
        return averaged(alike, competing=self.task == "single_label").numpy()

    def picture(self, place: int, side: int) -> Picture:
        """The image at ``place``, 0 to N - 1, at most ``side`` pixels high and wide.

        Raises:
            DataError: it cannot be read.
        """
        record = self.samples.read(int(self.index[place]))
        image = Image.fromarray(decode(bytes(record.image)))
        small = image.copy()
        if max(image.size) > side:
            small.thumbnail((side, side), Image.Resampling.LANCZOS)
        file = io.BytesIO()
        small.save(file, "JPEG", quality=_QUALITY)
        url = f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
        return Picture(printable(record.key), image.size, small.size, url)


def benches(runs: Sequence[Run], images: int) -> list[Bench]:
    """What the best students of ``runs`` and their teachers give for at most ``images`` validation images, spread over
    the split; one entry for runs that are scored on the same images. What cannot be had is in the notes of the runs.
    """
    together: dict[str, list[tuple[Run, DataConfig]]] = {}
    for run in runs:
        if not (run.path / "best.pt").exists():
            run.notes.append("no best.pt yet, which the end of an epoch writes: no network is looked at")
        elif run.task not in _TASKS:
            run.notes.append(f"task {run.task} is not one that a network is looked at for")
        else:
            try:
                data = restore(DataConfig, run.config["data"])[0]
            except (DataError, ValueError, TypeError) as error:
                run.notes.append(f"its settings of data cannot be used: {error}")
                continue
            known = {name: getattr(data, name) for name in _SHOWN_BY}
            key = json.dumps([run.task, run.config.get("task_options"), known], sort_keys=True, default=str)
            together.setdefault(key, []).append((run, data))
    made = [_bench([run for run, _ in some], some[0][1], images) for some in together.values()]
    return [one for one in made if one is not None and one.students]


def _bench(runs: list[Run], data: DataConfig, images: int) -> Bench | None:
    """None where the data cannot be read."""
    first = runs[0]
    options = first.config.get("task_options", {})
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        samples = open_split(data, data.val_split, data.val_data_type)
        check_labelled(samples, "they")
        bench = Bench(runs, first.task, _names(samples), samples, options.get("threshold", 0.5))
        loader = EvalLoader(samples, data, 0, 1, device, _targets(first.task, options, len(samples.classes)))
        with closing(loader):
            networks = _networks(bench, tuple(samples.classes), data)
            if networks:
                _look(bench, networks, loader.spread(images), device)
    except (UsageError, DataError) as error:
        for run in runs:
            run.notes.append(f"its validation images cannot be had, so that no network is looked at: {error}")
        return None
    return bench


def _names(samples: Samples) -> tuple[str, ...]:
    return tuple(map(printable, names_for_people(samples.classes)))


def _targets(task: str, options: dict[str, Any], classes: int) -> Targets:
    if task == "single_label":
        return Labels(classes)
    if task == "multi_label":
        return Present(classes)
    return Objects(classes, most=options.get("most_objects", 500), difficult="ignore", least_shown=0.0)


def _networks(bench: Bench, classes: tuple[str, ...], data: DataConfig) -> dict[str, Live]:
    """The students and teachers that can be built, by name; those of several runs that are the same once."""
    made: dict[str, Live] = {}

    def build(run: Run, name: str, config: NetworkConfig, called: str) -> bool:
        try:
            if name not in made:
                made[name] = build_teacher(config, classes, side=data.val_side, key=called, knows_all=False)
        except (UsageError, DataError) as error:
            run.notes.append(f"{called} cannot be built and is left out: {error}")
            return False
        if not made[name].network.num_classes:
            run.notes.append(f"{called} gives features alone and is left out")
        elif made[name].places is not None:
            run.notes.append(f"{called} knows some of the classes alone and is left out")
        return _knows_all(made[name])

    for run in bench.runs:
        try:
            student = student_of(run.config, run.path)
        except DataError as error:
            run.notes.append(f"the student cannot be built and is left out: {error}")
            continue
        name = f"student of {run.path}"
        if not build(run, name, student, "the student"):
            continue
        bench.students[run.path], bench.teachers[run.path] = name, {}
        for called, config in run.config.get("teachers", {}).items():
            teacher = restore(TeacherConfig, config)[0]
            network = NetworkConfig(**{one.name: getattr(teacher, one.name) for one in fields(NetworkConfig)})
            name = f"{network}, {teacher.classes}, {run.facts.get('teachers', {}).get(called)}"
            if build(run, name, teacher, f"teachers.{called}"):
                bench.teachers[run.path][called] = name
    return {name: network for name, network in made.items() if _knows_all(network)}


def _knows_all(network: Live) -> bool:
    """Whether it gives logits of all classes."""
    return network.places is None and network.network.num_classes > 0


@torch.no_grad()
def _look(bench: Bench, networks: dict[str, Live], loader: EvalLoader, device: torch.device) -> None:
    """Show the images to the networks, and keep what these give."""
    for network in networks.values():
        network.to(device).eval()
    index: list[np.ndarray] = []
    labels: list[np.ndarray] = []
    logits: dict[str, list[np.ndarray]] = {name: [] for name in networks}
    bar = {"desc": f"{bench.runs[0].name} and others" if len(bench.runs) > 1 else bench.runs[0].name, "unit": "batch"}
    for batch in progress(iterable=loader, total=len(loader), **bar):
        index.append(batch.index.cpu().numpy().copy())
        if bench.task == "detection":
            bench.truth += truths(batch)
        else:
            labels.append(batch["labels" if bench.task == "single_label" else "present"].cpu().numpy().copy())
        scene = Scene(batch.sizes, batch.targets, batch.index)
        for name, network in networks.items():
            outputs = network.predict(batch["images"], scene)
            if bench.task == "detection":
                bench.found.setdefault(name, []).extend(detected(outputs.context, batch))
            else:
                logits[name].append(outputs.logits.float().cpu().numpy().copy())
    if not index:
        raise DataError("not one validation image could be read")
    bench.index = np.concatenate(index)
    if bench.task != "detection":
        bench.labels = np.concatenate(labels)
        bench.logits = {name: np.concatenate(rows) for name, rows in logits.items()}
