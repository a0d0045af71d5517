"""What a run's folder says of how its student came about."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from export.student import read_json
from old_names import as_today
from training.facts import check_facts
from training.run_folder import RunFolder
from training.state import best_of
from utils.errors import DataError
from utils.text import counted

_COMMON = {"lmdb", "data", "dataset", "datasets", "images"}  # names of folders that name no data set


@dataclass(frozen=True)
class Facts:
    """Facts of a run.

    Attributes:
        name: of the run.
        phases: a line each: epochs and terms.
        teachers: name of the network and what is known of its weights, of each.
        data_name: the folder of its data.
        data: by split, its `images` and `sha256`.
        command: that trained it; paths of the machine are cut to their last part.
        environment: versions and devices, a line each.
        scores: of the best student, as logged.
    """

    name: str
    phases: list[str]
    teachers: list[tuple[str, str]]
    data_name: str
    data: dict[str, dict[str, Any]]
    command: str
    environment: list[str]
    scores: dict[str, float]

    @property
    def method(self) -> str:
        """The terms of the last phase."""
        return self.phases[-1].partition(": ")[2]


def facts_of(run: Path) -> Facts:
    """The facts of a run that has a best student.

    Raises:
        DataError: a file of its folder is missing or damaged.
    """
    read, environment = read_json(run / "facts.json"), read_json(run / "environment.json")
    try:
        check_facts(read)
        config = as_today(read_json(run / "config.json"))
        splits = {name: read["data"][name] for name in ("train", "val")}
        data = {
            name: {key: split[key] for key in ("images", "sha256")} | {"classes": len(split["classes"])}
            for name, split in splits.items()
        }
        return Facts(
            str(config["name"]),
            [_phase(name, phase) for name, phase in config["phases"].items()],
            [_teacher(name, one, read) for name, one in config["teachers"].items()],
            _data_name(config["data"]["data_path"]),
            data,
            _command(environment["command"]),
            _environment(environment),
            _scores(run),
        )
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise DataError(f"{run} is damaged, or of another version ({type(error).__name__}: {error})") from None


def _phase(name: str, phase: Mapping[str, Any]) -> str:
    terms = " + ".join(_term(key, term) for key, term in phase["terms"].items())
    return f"{name}, {counted(phase['epochs'], 'epoch')}: {terms}"


def _term(name: str, term: Mapping[str, Any]) -> str:
    objective = name if name == term["objective"] else f"{name} ({term['objective']})"
    options = ", ".join(f"{key}={value}" for key, value in term["options"].items())
    return f"{term['weight']:g} x {objective}{f' ({options})' if options else ''}"


def _teacher(name: str, teacher: Mapping[str, Any], read: Mapping[str, Any]) -> tuple[str, str]:
    path = PurePath(teacher["weights"].partition("#")[0])
    weights = f"{path.parent.name}/{path.name}" if path.name in ("student.safetensors", "best.pt") else path.name
    digest = read.get("teachers", {}).get(name, "")
    return teacher["name"], f"weights {weights}{f', SHA-256 {digest}' if digest else ''}"


def _data_name(path: str) -> str:
    """The last part of a path or URL that says what lies there."""
    parts = [part for part in path.rstrip("/").split("/") if part not in ("", "..", ".") and ":" not in part]
    return next((part for part in reversed(parts) if part.lower() not in _COMMON), "unnamed")


def _command(words: list[str]) -> str:
    return shlex.join(["python", PurePath(words[0]).name, *map(_without_place, words[1:])])


def _without_place(word: str) -> str:
    """A word of a command line, an absolute path in it cut to its last part."""
    key, equals, value = word.rpartition("=")
    return f"{key}{equals}PATH/TO/{PurePath(value).name}" if value.startswith(("/", "~")) else word


def _environment(read: Mapping[str, Any]) -> list[str]:
    versions = ", ".join(f"{name} {value}" for name, value in read["versions"].items() if value)
    devices = {device: read["devices"].count(device) for device in read["devices"]}
    used = ", ".join(f"{count} x {device}" for device, count in devices.items())
    return [f"Python {read['python']}, {versions}", used, f"Limbeck {read['git']}" if read["git"] else "Limbeck"]


def _scores(run: Path) -> dict[str, float]:
    """The logged scores of the one that best.pt is the best of: the student, or an average of it."""
    row, kind = RunFolder(run).best_scores(), best_of(run / "best.pt")
    own = {name: value for name, value in row.items() if not name.startswith(("ema_", "average_"))}
    if not kind:  # an older version always took the moving average where one was kept
        kind = "ema" if any(name.startswith("ema_") for name in row) else "student"
    if kind == "student":
        return own
    return {name: row.get(f"{kind}_{name}", value) for name, value in own.items()}
