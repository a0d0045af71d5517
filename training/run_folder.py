"""A run's folder: what it was told, what it measured, and where it can go on.

::

    runs/<name>/config.json           the resolved configuration
    runs/<name>/environment.json      command, git revision, versions, ranks
    runs/<name>/metrics.jsonl         one JSON object a line, "kind" train or val
    runs/<name>/tensorboard/          the same for TensorBoard
    runs/<name>/last.pt, best.pt      whole checkpoints
    runs/<name>/student.safetensors   the best student alone (its EMA where one is kept)
    runs/<name>/curves.png
"""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from collections.abc import Callable, Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from utils.distributed import Ranks, from_first
from utils.errors import DataError, UsageError
from utils.files import write_atomically


class RunFolder:
    """The folder of one run, written by rank 0."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.last, self.best = path / "last.pt", path / "best.pt"
        self._metrics = path / "metrics.jsonl"
        self._board: SummaryWriter | None = None
        self._wandb: Any = None

    def prepare(
        self, config: dict[str, Any], goes_on: Callable[[dict[str, Any]], Iterable[str]], ranks: Ranks, *, fresh: bool
    ) -> None:
        """Make the folder, or check that the run in it is this one. With ``fresh`` an earlier run is moved aside.

        Args:
            config: every setting.
            goes_on: remarks on a run of other settings that goes on with these, or its UsageError.
            ranks: this one among all.
            fresh: whether to start over.

        Raises:
            UsageError: the folder holds a run that cannot go on with these settings; on every rank.
        """
        failure = ""
        if ranks.first:
            try:
                self._prepare(config, goes_on, ranks.world, fresh)
            except (UsageError, DataError, OSError) as error:
                failure = str(error)
        failure = from_first(failure)
        if failure:
            raise UsageError(failure)

    def _prepare(
        self,
        config: dict[str, Any],
        goes_on: Callable[[dict[str, Any]], Iterable[str]],
        world: int,
        fresh: bool,
    ) -> None:
        if fresh and self.path.exists():
            number = 1
            while (aside := self.path.with_name(f"{self.path.name}.old{number}")).exists():
                number += 1
            self.path.rename(aside)
            print(f"the earlier run is kept as {aside}")
        text = json.dumps(config, indent=1)
        if (self.path / "config.json").exists():
            for remark in goes_on(json.loads((self.path / "config.json").read_bytes())):
                print(f"{self.path}: {remark}")
        self.path.mkdir(parents=True, exist_ok=True)
        write_atomically(self.path / "config.json", text.encode())
        environment = json.dumps(_environment(world), indent=1)
        write_atomically(self.path / "environment.json", environment.encode())

    def open_logs(self, epoch: int, step: int, config: dict[str, Any], wandb_project: str | None) -> None:
        """Start logging after ``epoch`` whole epochs and ``step`` steps; what a killed run logged beyond is dropped."""
        if self._metrics.exists():
            lines = [line for line in self._metrics.read_text().splitlines() if line.endswith("}")]
            limit = {"train": ("step", step), "val": ("epoch", epoch)}
            kept = "".join(f"{line}\n" for line in lines if _within(json.loads(line), limit))
            write_atomically(self._metrics, kept.encode())
        self._board = SummaryWriter(str(self.path / "tensorboard"), purge_step=step + 1)
        if wandb_project:
            self._wandb = _start_wandb(wandb_project, self.path, config)

    def log(self, kind: str, values: dict[str, float]) -> None:
        """Append a line to metrics.jsonl, and the same values to TensorBoard and Weights & Biases."""
        with self._metrics.open("a") as file:
            file.write(json.dumps({"kind": kind, **values}) + "\n")
        step = int(values["step"])
        for name, value in values.items():
            if name != "step" and self._board is not None:
                self._board.add_scalar(f"{kind}/{name}", value, step)
        if self._wandb is not None:
            try:
                self._wandb.log({f"{kind}/{name}": value for name, value in values.items()}, step=step)
            except Exception as error:  # a logger never stops a run
                print(f"Weights & Biases is off from here on: {error}", file=sys.stderr)
                self._wandb = None

    def close(self) -> None:
        """Flush the logs."""
        if self._board is not None:
            self._board.close()
        if self._wandb is not None:
            self._wandb.finish()


def _within(values: dict[str, Any], limits: dict[str, tuple[str, int]]) -> bool:
    name, limit = limits[values["kind"]]
    return values[name] <= limit


def _start_wandb(project: str, path: Path, config: dict[str, Any]) -> Any:
    try:
        import wandb
    except ImportError:
        raise UsageError("train_params.wandb_project needs wandb: pip install wandb") from None
    try:
        return wandb.init(project=project, name=path.name, id=path.name, resume="allow", dir=str(path), config=config)
    except Exception as error:
        print(f"Weights & Biases does not start, the run goes on without it: {error}", file=sys.stderr)
        return None


def _environment(world: int) -> dict[str, Any]:
    root = Path(__file__).resolve().parents[1]
    git = subprocess.run(
        ["git", "-C", str(root), "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    )
    packages = ("torch", "torchvision", "numpy", "lmdb", "opencv-python-headless", "pillow")
    return {
        "command": sys.argv,
        "git": git.stdout.strip(),
        "python": platform.python_version(),
        "ranks": world,
        "versions": {package: _version(package) for package in packages},
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except ModuleNotFoundError:
        return None
