"""A run's folder: its settings, what it read, what it measured, and the checkpoints from which it resumes.

::

    runs/<name>/config.json           the resolved configuration
    runs/<name>/environment.json      command, git revision, versions, devices, hosts
    runs/<name>/facts.json            classes, images and digests of the data, digests of the teachers' weights and of
                                      the files of networks of the user's own
    runs/<name>/metrics.jsonl         one JSON object a line, "kind" train or val
    runs/<name>/tensorboard/          the same for TensorBoard
    runs/<name>/last.pt, best.pt      whole checkpoints
    runs/<name>/student.safetensors   the best student alone (its EMA where one is kept)
    runs/<name>/curves.png
    runs/<name>/diverged.txt          why it is not trained to its end, where its loss was not finite
    runs/<name>/.lock                 held by the run that writes here; which that is
"""

from __future__ import annotations

import json
import os
import platform
import socket
import subprocess
import sys
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import torch

from training.facts import changed_code, changes
from training.logs import Logs
from utils.distributed import Ranks, gather, on_first
from utils.errors import DataError, Diverged, UsageError
from utils.files import lock, parsed, write_atomically
from utils.rows import best_row, of_kind, read_rows

Result = TypeVar("Result")
ResumeRemarks = Callable[[dict[str, Any]], Iterable[str]]  # (settings that a run began with) -> remarks, or UsageError


class RunFolder:
    """The folder of one run, written by rank 0."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.last, self.best, self.student = path / "last.pt", path / "best.pt", path / "student.safetensors"
        self._diverged = path / "diverged.txt"
        self._logs: Logs | None = None
        self._locked, self._is_locked = ExitStack(), False

    @property
    def is_begun(self) -> bool:
        """Whether there is a checkpoint to resume from."""
        return self.last.exists() or self.best.exists()

    def claim(self, resume_remarks: ResumeRemarks, ranks: Ranks, *, fresh: bool) -> None:
        """See that the run in the folder, if there is one, is this one; from now on it is this process's, to its end.

        Args:
            resume_remarks: of the settings that the run began with, remarks on resuming it with those of now; or it
                raises the UsageError.
            ranks: this one among all.
            fresh: whether to start over, and so to compare nothing.

        Raises:
            UsageError: it holds a run with other settings, which are named, or one that is still being written; or it
                cannot be written. On every rank.
            DataError: a file in it is damaged. On every rank.
        """
        self._on_folder(lambda: self._claim(resume_remarks, fresh=fresh), ranks)

    def compare(self, resume_remarks: ResumeRemarks, facts: Callable[[], dict[str, Any]], ranks: Ranks) -> None:
        """See that the run in the folder is this one, and print remarks; it is only read.

        Args:
            resume_remarks: as for `claim`.
            facts: reads what this one reads, as `facts_of` gives it.
            ranks: this one among all.

        Raises:
            UsageError: it holds a run with other settings or of other data, which are named. On every rank.
            DataError: a file in it is damaged. On every rank.
        """

        def compare() -> None:
            self._compare(resume_remarks)
            self._compare_facts(facts())

        on_first(compare, ranks)

    def begin(
        self, config: dict[str, Any], resume_remarks: ResumeRemarks, facts: dict[str, Any], ranks: Ranks, *, fresh: bool
    ) -> None:
        """Make the folder, or see that the run in it read the same data and teachers; write what this one is.

        Args:
            config: every setting.
            resume_remarks: as for `claim`, for a run that has begun since.
            facts: what was read, by `facts_of`; rank 0's count.
            ranks: this one among all.
            fresh: whether an earlier run is put aside first.

        Raises:
            UsageError: the run in it read other data or teachers, which are named; or it cannot be written. On every
                rank.
            DataError: a file in it is damaged. On every rank.
        """
        places = gather((socket.gethostname(), _device(ranks)))
        self._on_folder(lambda: self._begin(config, resume_remarks, facts, places, fresh=fresh), ranks)

    def _on_folder(self, work: Callable[[], None], ranks: Ranks) -> None:
        def writing() -> None:
            try:
                work()
            except OSError as error:
                raise UsageError(f"train_params.output_path: {self.path} cannot be written: {error.strerror}") from None

        on_first(writing, ranks)

    def _claim(self, resume_remarks: ResumeRemarks, *, fresh: bool) -> None:
        if self.path.exists():
            self._lock()
            if not fresh:
                self._compare(resume_remarks)

    def _compare(self, resume_remarks: ResumeRemarks) -> None:
        """What old runs or killed ones lack is not compared."""
        for remark in _read(self.path / "config.json", lambda then: list(resume_remarks(then))) or ():
            print(f"{self.path}: {remark}")

    def _compare_facts(self, facts: dict[str, Any]) -> None:
        for remark in _read(self.path / "facts.json", lambda then: list(changed_code(then, facts))) or ():
            print(f"{self.path}: {remark}")
        if shown := _read(self.path / "facts.json", lambda then: changes(then, facts)):
            raise UsageError(
                f"{self.path} holds a run that read something else: {shown}. Set another name=..., or start over with "
                "--fresh"
            )

    def _begin(
        self,
        config: dict[str, Any],
        resume_remarks: ResumeRemarks,
        facts: dict[str, Any],
        places: list[tuple[str, str]],
        *,
        fresh: bool,
    ) -> None:
        if self.path.exists() and not self._is_locked:  # another has begun since
            self._claim(resume_remarks, fresh=fresh)
        if self._is_locked and fresh:
            self._move_aside()
        if not self._is_locked:
            self.path.mkdir(parents=True, exist_ok=True)  # two may start at once
            self._lock()
        else:
            self._compare_facts(facts)
        self._diverged.unlink(missing_ok=True)
        write_atomically(self.path / "config.json", json.dumps(config, indent=1).encode())
        write_atomically(self.path / "facts.json", json.dumps(facts, indent=1).encode())
        write_atomically(self.path / "environment.json", json.dumps(_environment(places), indent=1).encode())

    def _lock(self) -> None:
        """Refuse a folder that another process writes; the kernel gives the lock back when this one ends."""
        path, held = self.path / ".lock", f"{self.path} is written by a run that is still going"
        try:
            self._locked.enter_context(lock(path, held))
        except UsageError as error:
            if str(error) != held:
                raise UsageError(f"train_params.output_path: {error}") from None
            holder = path.read_text() or "another process"
            raise UsageError(f"{held} ({holder}): let it end, or set another name=...") from None
        path.write_text(f"process {os.getpid()} on {socket.gethostname()}")
        self._is_locked = True

    def _move_aside(self) -> None:
        number = 1
        while (aside := self.path.with_name(f"{self.path.name}.old{number}")).exists():
            number += 1
        self.path.rename(aside)
        self._locked.close()
        self._is_locked = False
        print(f"the earlier run is kept as {aside}")

    @property
    def has_scores(self) -> bool:
        """Whether an epoch was validated, before which a checkpoint is written."""
        return bool(self._validations())

    def best_scores(self) -> dict[str, float]:
        """The validation scores of the epoch with the best student; none before the first epoch's end."""
        best = best_row(self._validations())
        return {name: value for name, value in best.items() if name not in ("kind", "phase", "stage")}

    def _validations(self) -> list[dict[str, Any]]:
        metrics = self.path / "metrics.jsonl"
        return of_kind(read_rows(metrics)[0], "val") if metrics.exists() else []

    def note_divergence(self, error: Diverged) -> None:
        """Write down why the run is not trained to its end, until it resumes."""
        write_atomically(self._diverged, f"{error}\n".encode())

    def open_logs(self, epoch: int, step: int, config: dict[str, Any], wandb_project: str | None) -> None:
        """Start `Logs` after ``epoch`` whole epochs and ``step`` steps."""
        self._logs = Logs(self.path, epoch, step, config, wandb_project)

    def log(self, kind: str, values: dict[str, float], phase: str = "") -> None:
        """As `Logs.log`."""
        assert self._logs is not None
        self._logs.log(kind, values, phase)

    def close(self) -> None:
        """End the logs, and give the folder back."""
        if self._logs is not None:
            self._logs.close()
        self._locked.close()


def _read(path: Path, use: Callable[[dict[str, Any]], Result]) -> Result | None:
    """What ``use`` makes of the object in a JSON file; None where that is missing."""
    if not path.exists():
        return None
    try:
        content = parsed(path.read_bytes())
        if not isinstance(content, dict):
            raise TypeError("no JSON object")
        return use(content)
    except UsageError:
        raise
    except (ValueError, TypeError, KeyError, AttributeError, DataError) as error:
        raise DataError(
            f"{path} is damaged ({type(error).__name__}: {error}): restore it; or delete it, then the same command "
            "writes it anew and takes this run's settings and data on trust; or start over with --fresh"
        ) from None


def _device(ranks: Ranks) -> str:
    return torch.cuda.get_device_name(ranks.device) if ranks.device.type == "cuda" else ranks.device.type


def _environment(places: list[tuple[str, str]]) -> dict[str, Any]:
    packages = ("torch", "torchvision", "numpy", "lmdb", "opencv-python-headless", "pillow")
    return {
        "command": sys.argv,
        "git": _revision(),
        "python": platform.python_version(),
        "ranks": len(places),
        "hosts": sorted({host for host, _ in places}),
        "devices": [device for _, device in places],  # by rank
        "cpus": os.cpu_count(),
        "versions": {package: _version(package) for package in packages},
    }


def _revision() -> str | None:
    """That of the checkout; None without git, or where git does not serve it."""
    root = Path(__file__).resolve().parents[1]
    try:
        git = subprocess.run(
            ["git", "-C", str(root), "describe", "--always", "--dirty"], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return git.stdout.strip()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except ModuleNotFoundError:
        return None
