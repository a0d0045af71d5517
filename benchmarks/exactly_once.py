"""Runs of 1, 2 and 4 ranks that are killed again and again: does each take every sample of every epoch exactly once?

    make demo    # packs the digits
    python -m benchmarks.exactly_once [--kills 200] [--ranks 1 2 4] [--cfg configs/digits.py] [key=value ...]

SIGKILL takes a random rank, which torchrun starts again with the others (--max-restarts=3) until it gives up, or the
whole job; then the same command is started by hand. It comes some steps after the last one, or after some seconds
whatever the ranks are doing: start, checkpoint, validation. Every step writes down its samples, and they are compared
with those of a run that nothing befell; so are all logged losses and scores, and the bytes of the last checkpoint.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from benchmarks import consumption
from benchmarks.common import check_counts, show
from benchmarks.restarts import launch, learned, place
from utils.console import exit_with_its_code, progress
from utils.errors import DataError

STEPS, SECONDS = 12, 12.0  # after which a kill comes at the latest


@exit_with_its_code
def main() -> None:
    """Kill runs of each number of ranks, a line each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200, help="of all runs together")
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2, 4], help="of a run; it divides the batch size")
    parser.add_argument("--cfg", type=Path, default=Path("configs/digits.py"), help="config of the runs")
    parser.add_argument(
        "--work", type=Path, default=Path("runs/exactly_once"), help="folder of the runs; emptied first"
    )
    options, overrides = parser.parse_known_args()
    check_counts(kills=options.kills, **{f"ranks {count}": count for count in options.ranks})
    shutil.rmtree(options.work, ignore_errors=True)
    options.work.mkdir(parents=True)
    share = -(-options.kills // len(options.ranks))
    settings = [f"train_params.output_path={options.work}", "train_params.print_freq=1", f"epochs={2 + share // 2}"]
    settings += ["train_params.checkpoint_steps=3", "data.batch_size=48", *overrides]
    for number, ranks in enumerate(options.ranks):
        kills = min(share, options.kills - number * share)
        run = Job(options.work, ranks, ["--cfg", str(options.cfg), *settings])
        show("exactly_once", {"ranks": ranks, **run.killed(kills)})


class Job:
    """A training run of some ranks under torchrun, and the same one without a kill.

    Args:
        work: where both leave their folders.
        ranks: how many.
        words: of the command line.
    """

    def __init__(self, work: Path, ranks: int, words: list[str]) -> None:
        self._work, self._ranks, self._words, self._draws = work, ranks, words, random.Random(ranks)

    def killed(self, kills: int) -> dict[str, object]:
        """What the run comes to.

        Raises:
            DataError: one did not end well without a kill.
        """
        whole, name = f"{self._ranks}_ranks_whole", f"{self._ranks}_ranks"
        self._to_its_end(whole)
        counted = Counter(kills_of_ranks=0, kills_of_jobs=0, starts_by_hand=1)
        job = self._start(name)
        with progress(total=kills, desc=name, unit="kill") as bar:
            while sum(counted[kind] for kind in ("kills_of_ranks", "kills_of_jobs")) < kills:
                self._wait_a_while(job, name)
                if job.poll() is not None:
                    if job.returncode == 0:
                        break  # it has come to its end
                    job = self._start(name)
                    counted["starts_by_hand"] += 1
                    continue
                kind = self._draws.choice(("kills_of_ranks", "kills_of_ranks", "kills_of_jobs"))
                killed = self._kill(job, whole=kind == "kills_of_jobs")
                counted[kind] += killed
                bar.update(killed)
        while job.wait():
            job = self._start(name)
            counted["starts_by_hand"] += 1
        taken, should = (consumption.read(self._log(one)) for one in (name, whole))
        return {
            **counted,
            "steps": len({one.step for one in should}),
            **consumption.compare(taken, should)._asdict(),
            "logs_equal": learned(self._work / name) == learned(self._work / whole),
            "checkpoints_equal": self._checkpoint(name) == self._checkpoint(whole),
        }

    def _start(self, name: str) -> subprocess.Popen[bytes]:
        torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={self._ranks}"]
        torchrun += ["--max-restarts=3", "--monitor-interval=0.1", "-m", "benchmarks.consumption"]
        command = [sys.executable, *torchrun, str(self._log(name)), "train_with_distillation.py", *self._words]
        return launch([*command, f"name={name}"], self._work / f"{name}.log")

    def _to_its_end(self, name: str) -> None:
        if self._start(name).wait():
            raise DataError(f"the run without a kill did not end well: {self._work / name}.log has what it printed")

    def _log(self, name: str) -> Path:
        return self._work / f"{name}_taken"

    def _wait_a_while(self, job: subprocess.Popen[bytes], name: str) -> None:
        """Until some steps more have been taken, or some seconds are over."""
        if self._draws.random() < 0.25:
            end, steps = time.monotonic() + self._draws.uniform(0, SECONDS), sys.maxsize
        else:
            end, steps = time.monotonic() + 20 * SECONDS, self._taken(name) + self._draws.randint(1, STEPS)
        while job.poll() is None and time.monotonic() < end and self._taken(name) < steps:
            time.sleep(0.05)

    def _taken(self, name: str) -> int:
        """Steps that were taken, again or for the first time."""
        files = self._log(name).glob("*.jsonl")
        return sum(path.read_bytes().count(b"\n") for path in files) // self._ranks

    def _kill(self, job: subprocess.Popen[bytes], *, whole: bool) -> int:
        """SIGKILL to all processes of a job, or to one rank; how many kills that was, for there may be no rank yet."""
        below = descendants(job.pid)
        victims = [job.pid, *below] if whole else [one for one in below if place(one) >= 0]
        if not whole and victims:
            victims = [self._draws.choice(victims)]
        for victim in victims:
            try:
                os.kill(victim, signal.SIGKILL)
            except ProcessLookupError:
                continue
        if whole:
            job.wait()
        return bool(victims)

    def _checkpoint(self, name: str) -> bytes:
        return (self._work / name / "last.pt").read_bytes()


def descendants(process: int) -> list[int]:
    """The processes below ``process``, each before those that it started."""
    found = []
    for thread in Path(f"/proc/{process}/task").glob("*/children"):
        try:
            children = [int(child) for child in thread.read_text().split()]
        except (FileNotFoundError, ProcessLookupError):  # ended meanwhile
            continue
        for child in children:
            found += [child, *descendants(child)]
    return found


if __name__ == "__main__":
    main()
