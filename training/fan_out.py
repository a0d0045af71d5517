"""Several runs of a procedure at a time, each a process of its own, on a share of the GPUs."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from training.logs import Extra
from training.manifest import Manifest
from training.signals import Stop
from utils.errors import DataError, Stopped
from utils.files import make_folder
from utils.text import counted

_LINES = 5  # of the log of a failed run, in the message


@dataclass(frozen=True)
class Run:
    """One of the runs.

    Attributes:
        folder: where it goes; its log lies beside.
        needs: names of the runs that must be trained before.
    """

    folder: Path
    needs: Sequence[str]

    @property
    def log(self) -> Path:
        """What it prints."""
        return self.folder.with_name(f"{self.folder.name}.log")


def train_at_once(
    runs: Mapping[str, Run], command: Sequence[str], at_a_time: int, manifest: Manifest, stop: Stop
) -> None:
    """Train all ``runs``; those that were trained before end at once, and stopped ones resume.

    Args:
        runs: by name.
        command: of one run, but for its name, which is added at the end.
        at_a_time: how many, each on as many GPUs; on all CPU cores where there is none.
        manifest: where what became of them is written.
        stop: what ends all of them.

    Raises:
        DataError: a run failed; once the others have ended, with the last lines of its log.
        Stopped: ``stop`` was asked for; the state of all is saved.
    """
    shares = shares_of_gpus(at_a_time)
    waiting, trained, failed = dict(runs), set[str](), list[str]()
    active: dict[str, tuple[subprocess.Popen, int]] = {}  # by name: the process, and which share it has
    forwarded, table = False, Extra(str(manifest.path))
    stop.defer()
    try:
        while active or (waiting and not failed and not stop.asked):
            for name in [one for one, run in waiting.items() if trained.issuperset(run.needs)]:
                if len(active) == at_a_time or failed or stop.asked:
                    break
                slot = next(
                    number for number in range(at_a_time) if number not in [taken for _, taken in active.values()]
                )
                active[name] = _start(name, waiting.pop(name), command, shares[slot]), slot
                table.do(lambda name=name: manifest.note(name, "training"))  # type: ignore[misc]
                on = f" on GPU {shares[slot]}" if shares[slot] else ""
                print(f"{name}: started{on}, log in {runs[name].log}", flush=True)
            if stop.asked and not forwarded:
                forwarded = True
                for process, _ in active.values():
                    process.terminate()
            for name, (process, _) in list(active.items()):
                if (code := process.poll()) is None:
                    continue
                del active[name]
                if code == 0:
                    trained.add(name)
                elif not stop.asked:
                    failed.append(name)
                state = "trained" if code == 0 else "waiting" if stop.asked or code == Stopped.exit_code else "failed"
                table.do(lambda name=name, state=state: manifest.note(name, state))  # type: ignore[misc]
                how = "" if code >= 0 or stop.asked else f" by signal {-code}"
                print(f"{name}: {state}{how}; {counted(len(trained), 'run')} of {len(runs)}", flush=True)
            time.sleep(0.2)
    finally:  # an error here must not leave them behind
        for process, _ in active.values():
            process.terminate()
    if stop.asked:
        raise Stopped(f"stopped by {stop.asked}; the same command resumes")
    if failed:
        logs = [f"{name}: {_end_of(runs[name].log)}" for name in failed]
        raise DataError(f"{counted(len(failed), 'run')} failed; the same command resumes.\n" + "\n".join(logs))


def shares_of_gpus(processes: int) -> list[str]:
    """What of the visible GPUs each process is to see, as CUDA_VISIBLE_DEVICES; empty without GPUs.

    Where there are fewer GPUs than processes, several share one.
    """
    given = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    count = torch.cuda.device_count()
    gpus = given[:count] if given[0] else [str(number) for number in range(count)]
    if not gpus:
        return [""] * processes
    return [",".join(gpus[number::processes] or [gpus[number % len(gpus)]]) for number in range(processes)]


def _start(name: str, run: Run, command: Sequence[str], share: str) -> subprocess.Popen:
    make_folder(run.folder.parent, "train_params.output_path")
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": share} if share else None
    with run.log.open("a") as log:
        words = [sys.executable, *command, "--only", name]
        return subprocess.Popen(words, stdout=log, stderr=subprocess.STDOUT, env=environment)


def _end_of(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines()[-_LINES:]
    return "\n  ".join([str(log), *lines])
