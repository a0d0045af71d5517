"""The best student of a run, out of its folder or out of one that `tools.export` wrote. K classes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import safetensors

import tasks
from dataset.config import DataConfig
from models.zoo import Network, NetworkConfig, build_network
from old_names import as_today
from tasks import Task
from training.facts import check_facts
from training.state import best_weights
from utils.config import restore
from utils.errors import DataError, UsageError
from utils.files import parsed
from utils.registry import Value
from utils.settings import check

WEIGHTS = "model.safetensors"  # of an exported folder
_SHOWN = ("input_size", "val_crop", "val_resize", "longest_side", "decode")  # settings that say what a network is shown


@dataclass(frozen=True)
class Settings:
    """Of all settings of a run those that say what its student is, and what it is shown."""

    data: DataConfig
    student: NetworkConfig
    task: str = "single_label"
    task_options: dict[str, Value] = field(default_factory=dict)

    def made_task(self) -> Task:
        """The task.

        Raises:
            UsageError: there is none of this name, or it has no such options.
        """
        return tasks.get(self.task, self.task_options)

    def as_exported(self) -> dict[str, Any]:
        """What `restore` makes them of again, as JSON, without the paths of a machine."""
        options = {name: value for name, value in self.student.head.options.items() if name != "vectors"}
        student = replace(self.student, weights="none", head=replace(self.student.head, options=options))
        data = {"data_path": "", **{name: getattr(self.data, name) for name in _SHOWN}}
        values = {name: value for name, value in asdict(student).items() if name != "folder"}
        return {"data": data, "student": values, "task": self.task, "task_options": self.task_options}


@dataclass(frozen=True)
class Student:
    """A network with what one needs to use it.

    Attributes:
        folder: where it was found.
        settings: of its run; the weights of `student` are a file.
        network: in eval mode, on the CPU.
        classes: K names of its outputs; of one that the run did not name, its number.
    """

    folder: Path
    settings: Settings
    network: Network
    classes: tuple[str, ...]

    @property
    def output(self) -> str:
        """What of its outputs is of use: `logits`, or the feature that was learned where its classifier was not."""
        return next(iter(self.settings.made_task().reads), "logits")


def student_of(folder: Path) -> Student:
    """The best student of a run, as it was trained; or the one of an exported folder.

    Raises:
        UsageError: the folder is neither, or holds no best student yet.
        DataError: a file in it is damaged.
    """
    if (folder / "config.json").exists():
        settings, classes = settings_of_run(folder), classes_of_run(folder)
        best = folder / "best.pt"
        if not best.exists():
            raise UsageError(f"{folder} holds no best.pt: train that run for an epoch first")
        return built(folder, settings, best_weights(best), classes)
    if (folder / WEIGHTS).exists():
        path = folder / WEIGHTS
        about = about_of(path)
        if not {"settings", "classes"} <= about.keys():
            raise UsageError(f"{path} was not written by tools.export: nothing in it says what network it is of")
        try:
            values, classes = parsed(about["settings"]), parsed(about["classes"])
            if type(classes) is not list or not {*map(type, classes)} <= {str}:
                raise TypeError("its classes are no names")
        except (ValueError, TypeError) as error:
            raise DataError(f"{path} is damaged ({error}): export the run again") from None
        return built(folder, _settings(path, values), str(path.resolve()), tuple(classes))
    raise UsageError(f"{folder} is neither a run's folder, with config.json, nor an exported one, with {WEIGHTS}")


def built(folder: Path, settings: Settings, weights: str, classes: tuple[str, ...]) -> Student:
    """The student of ``settings`` with ``weights``, a file, whose first outputs are the ``classes``.

    Raises:
        UsageError, DataError: as `build_network`.
    """
    settings = replace(settings, student=replace(settings.student, weights=weights))
    side = settings.data.val_side
    reads = settings.made_task().reads
    network = build_network(settings.student, len(classes), reads, side, classes=classes).requires_grad_(False).eval()
    names = (*classes, *map(str, range(len(classes), network.num_classes)))
    return Student(folder, settings, network, names)


def settings_of_run(run: Path) -> Settings:
    """What config.json says.

    Raises:
        DataError: it is damaged, or of another version.
    """
    return _settings(run / "config.json", read_json(run / "config.json"))


def classes_of_run(run: Path) -> tuple[str, ...]:
    """Names of the classes that were learned, in order.

    Raises:
        DataError: facts.json is missing or damaged.
    """
    try:
        facts = read_json(run / "facts.json")
        check_facts(facts)
        return tuple(facts["data"]["train"]["classes"])
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{run / 'facts.json'} is damaged ({type(error).__name__}: {error})") from None


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        DataError: it is missing or damaged.
    """
    try:
        return dict(parsed(path.read_bytes()))
    except FileNotFoundError:
        raise DataError(f"{path} is missing: the same command that trained the run writes it again") from None
    except (ValueError, TypeError) as error:
        raise DataError(f"{path} is damaged: {error}") from None


def about_of(path: Path) -> dict[str, str]:
    """The notes in the head of a safetensors file.

    Raises:
        DataError: it is damaged.
    """
    try:
        with safetensors.safe_open(path, "pt") as file:
            return dict(file.metadata() or {})
    except Exception as error:  # of Rust
        raise DataError(f"{path} is damaged ({error}): export the run again") from None


def _settings(path: Path, values: Mapping[str, Any]) -> Settings:
    try:
        settings = restore(Settings, as_today(values))[0]
        check(settings)
        return settings
    except (ValueError, TypeError, KeyError, AttributeError, DataError) as error:
        raise DataError(f"{path} is damaged, or of another version ({error})") from None
