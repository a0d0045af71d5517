"""The runs below folders: what each is, what it reached, and how far it is.

python -m figures.runs [FOLDER ...] [--sort date] [--json]

Of each run first the best score and its epoch, epochs that are done of all, state, time trained, date of the last line
of its log, and folder; below it student and teachers, the terms of each phase, and settings in which it differs from
the others of these networks and terms, or from most of the runs; but for those that change nothing of its result: where
it writes, how often it prints, workers, the cache. A run is

    training         going on: a process holds its folder
    done             trained to its end
    diverged         its loss was not finite
    stopped          by a signal or a failure; the same command resumes it
    never started    without a step that was logged or saved
    damaged          not to be read; the second line says why
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import textwrap
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from tqdm import tqdm

from figures import log
from utils.console import exit_with_its_code
from utils.errors import ExpectedError, UsageError
from utils.settings import show
from utils.text import counted, printable

DIVERGED = "diverged.txt"  # in the folder of a run whose loss was not finite

_SHOWN = 4  # settings of a run
_WIDE = 100  # columns where there is no terminal


@dataclass(frozen=True)
class Run:
    """A row of the list.

    Attributes:
        folder: its path.
        state: as above.
        date: of the last line of its log, ISO 8601, or of its settings before there is one.
        student: its name.
        teachers: their names.
        terms: objectives of each phase.
        score: by which the best student is chosen.
        best: the highest, percent.
        epoch: of the best student.
        epochs: whole ones that are done.
        of: so many.
        seconds: of training, as the log counts them.
        differs: settings that another run has with another value.
        damage: what cannot be read.
    """

    folder: str
    state: str
    date: str
    student: str = ""
    teachers: list[str] = field(default_factory=list)
    terms: list[list[str]] = field(default_factory=list)
    score: str | None = None
    best: float | None = None
    epoch: int | None = None
    epochs: int = 0
    of: int = 0
    seconds: float | None = None
    differs: dict[str, Any] = field(default_factory=dict)
    damage: str = ""


_ORDERS: dict[str, Callable[[Run], Any]] = {
    "date": lambda run: -datetime.fromisoformat(run.date).timestamp(),
    "best": lambda run: (run.score or "~", math.inf if run.best is None or math.isnan(run.best) else -run.best),
    "time": lambda run: -(run.seconds or 0.0),
    "name": lambda run: run.folder,
}


def list_runs(folders: Sequence[Path]) -> list[Run]:
    """The runs at any depth below the folders, and these themselves where they are runs, by path.

    Raises:
        UsageError: one is no folder.
    """
    paths = dict.fromkeys(path for folder in folders for path in _find(folder))
    configs: dict[Path, dict[str, Any]] = {}
    runs = []
    for path in paths:
        try:
            configs[path] = log.read_config(path)
            runs.append(_run(path, configs[path]))
        except (*ExpectedError, OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            configs.pop(path, None)
            damage = str(error) if isinstance(error, ExpectedError) else f"{type(error).__name__}: {error}"
            runs.append(Run(str(path), "damaged", _changed(path), damage=damage))
    differs = dict(zip(configs, log.differing([*configs.values()])))
    return [replace(run, differs=differs.get(Path(run.folder), {})) for run in runs]


def _find(folder: Path) -> Iterator[Path]:
    if not folder.is_dir():
        raise UsageError(f"{folder}: no such folder; name those that hold runs (train_params.output_path)")
    seen = set()
    for path, below, files in os.walk(folder, followlinks=True):
        if (real := os.path.realpath(path)) in seen:  # a link to what is above
            below.clear()
            continue
        seen.add(real)
        below[:] = sorted(name for name in below if name != "tensorboard" and not name.startswith("."))
        if "metrics.jsonl" in files or (
            "config.json" in files and {"environment.json", "last.pt", "best.pt"} & {*files}
        ):
            yield Path(path)


def _run(path: Path, config: dict[str, Any]) -> Run:
    rows = log.metrics_so_far(path)
    best, done, of = log.best_row(rows), log.epochs_done(rows), log.epochs_of(config)
    last = rows[-1] if rows else {}  # those of older versions have no time
    return Run(
        folder=str(path),
        state=_state(path, is_done=done >= of, is_begun=bool(rows)),
        date=datetime.fromisoformat(last["time"]).isoformat() if "time" in last else _changed(path),
        student=config["student"]["name"],
        teachers=[teacher["name"] for teacher in config["teachers"].values()],
        terms=[_objectives(phase["terms"]) for phase in config["phases"].values()],
        score=log.primary([best]) if best else None,
        best=float(log.highest(best)) if best else None,
        epoch=int(best["epoch"]) if best else None,
        epochs=done,
        of=of,
        seconds=float(last["seconds"]) if "seconds" in last else None,
    )


def _state(path: Path, *, is_done: bool, is_begun: bool) -> str:
    if is_done:
        return "done"
    if log.is_written(path):
        return "training"
    if (path / DIVERGED).exists():
        return "diverged"
    return "stopped" if is_begun or (path / "last.pt").exists() or (path / "best.pt").exists() else "never started"


def _objectives(terms: dict[str, Any]) -> list[str]:
    return [*dict.fromkeys(term["objective"] for term in terms.values())]


def _changed(path: Path) -> str:
    file = next(file for file in (path / "metrics.jsonl", path / "config.json") if file.exists())
    return datetime.fromtimestamp(file.stat().st_mtime, timezone.utc).isoformat(timespec="seconds")


def table(runs: Sequence[Run], width: int = _WIDE) -> str:
    """The runs as text of ``width`` columns, where the names of their folders leave room for that."""
    cells = [("best", "epochs", "state", "trained", "last line", "run"), *map(_cells, runs)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]) - 1)]
    first, *lines = ["  ".join([*(text.ljust(size) for text, size in zip(row, widths)), row[-1]]) for row in cells]
    wrapped = textwrap.TextWrapper(
        width, initial_indent=" " * 4, subsequent_indent=" " * 6, break_on_hyphens=False, break_long_words=False
    )
    own = _own_settings(runs)
    return "\n".join(
        [first, *(f"{line}\n{wrapped.fill(_described(*one))}" for line, one in zip(lines, zip(runs, own)))]
    )


def _own_settings(runs: Sequence[Run]) -> list[list[str]]:
    """Of each run the settings in which it differs from others of its networks and terms, and then those in which it is
    not like most that have them, the rarest first."""
    every = [[(key, show(value)) for key, value in run.differs.items() if not _is_said(key)] for run in runs]
    kinds = [json.dumps([run.student, run.teachers, run.terms]) for run in runs]
    having = Counter(key for one in every for key, _ in one)
    alike = Counter(pair for one in every for pair in one)
    values = Counter((kind, key) for kind, key, _ in {(kind, *pair) for kind, one in zip(kinds, every) for pair in one})
    found = []
    for kind, one in zip(kinds, every):
        varied = {key for key, _ in one if values[kind, key] > 1}
        rare = [pair for pair in one if pair[0] in varied or 2 * alike[pair] <= having[pair[0]]]
        rare.sort(key=lambda pair: (pair[0] not in varied, alike[pair]))
        found.append([f"{key}={text}" for key, text in rare])
    return found


def _cells(run: Run) -> tuple[str, ...]:
    best = "" if run.best is None else f"{run.score} {run.best:.3f} @{run.epoch}"
    epochs = f"{run.epochs}/{run.of}" if run.of else ""
    trained = "" if run.seconds is None else tqdm.format_interval(run.seconds)
    date = datetime.fromisoformat(run.date).astimezone().strftime("%Y-%m-%d %H:%M")
    return best, epochs, run.state, trained, date, printable(run.folder)


def _described(run: Run, differs: Sequence[str]) -> str:
    """The second line."""
    if run.damage:
        return printable(run.damage)
    networks = f"{run.student} from {', '.join(run.teachers)}" if run.teachers else f"{run.student} alone"
    terms = ", then ".join(" + ".join(phase) for phase in run.terms)
    more = [f"and {counted(len(differs) - _SHOWN, 'setting')} more"] if len(differs) > _SHOWN else []
    return "; ".join(filter(None, [networks, terms, " ".join([*differs[:_SHOWN], *more])]))


def _is_said(key: str) -> bool:
    """Whether the setting stands before those that differ in any case."""
    return (
        key.endswith(".objective") or key == "student.name" or (key.startswith("teachers.") and key.endswith(".name"))
    )


@exit_with_its_code
def main() -> None:
    """List the runs on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "folders", nargs="*", type=Path, default=[Path("runs")], help="that hold runs at any depth (default: runs)"
    )
    parser.add_argument("--sort", choices=_ORDERS, default="date", help="the newest, best or longest first, or by name")
    parser.add_argument("--json", action="store_true", help="print all that is known, as JSON")
    options = parser.parse_args()
    runs = sorted(list_runs(options.folders), key=_ORDERS[options.sort])
    if options.json:
        print(log.as_json([asdict(run) for run in runs]))
    elif runs:
        print(table(runs, shutil.get_terminal_size((_WIDE, 24)).columns))
    else:
        print(f"no runs below {', '.join(map(str, options.folders))}")


if __name__ == "__main__":
    main()
