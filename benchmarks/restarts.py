"""Two ranks under torchrun, one of which is killed at a random step: does the run come back at the first restart?

    make demo    # packs the digits
    python -m benchmarks.restarts [--rounds 10] [--cfg configs/digits.py] [key=value ...]

Each round is a run of its own in which SIGKILL takes a random rank at a random step. It counts when torchrun starts the
ranks exactly once more, the run ends well, and every logged loss and score is that of a run that nothing befell.
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
from pathlib import Path
from typing import Any

from benchmarks.common import check_counts, show
from figures.curves import read_metrics
from utils.console import exit_with_its_code
from utils.errors import DataError

TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--max-restarts=3")
UNLIKE = ("images_per_second", "data_wait", "seconds", "time")  # never twice the same


@exit_with_its_code
def main() -> None:
    """Run the rounds, a line each, and a line of all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10, help="runs, each killed once")
    parser.add_argument("--cfg", type=Path, default=Path("configs/digits.py"), help="config of the runs")
    parser.add_argument("--work", type=Path, default=Path("runs/restarts"), help="folder of the runs; emptied first")
    options, overrides = parser.parse_known_args()
    check_counts(rounds=options.rounds)
    shutil.rmtree(options.work, ignore_errors=True)
    settings = [f"train_params.output_path={options.work}", "train_params.print_freq=1", *overrides]
    settings.append("train_params.checkpoint_steps=7")
    command = [*TORCHRUN, "train_with_distillation.py", "--cfg", str(options.cfg), *settings]
    options.work.mkdir(parents=True)
    launch([*command, "name=whole"], options.work / "whole.log").wait()
    whole = learned(options.work / "whole")
    last = max((row["step"] for row in whole), default=0)
    if last < 2:
        raise DataError(f"the run without a kill left no steps in {options.work / 'whole'}: see what it printed")
    good = 0
    for number in range(options.rounds):
        draws = random.Random(number)
        step, rank = draws.randrange(1, last), draws.randrange(2)
        name = f"round{number}"
        log = options.work / f"{name}.log"
        process = launch([*command, f"name={name}"], log)
        kill(process, options.work / name, step, rank)
        process.wait()
        starts = log.read_text().count(f"{options.work / name}: ") - 1  # one line a start, one at the end
        same = process.returncode == 0 and learned(options.work / name) == whole
        good += same and starts == 2
        show("restarts", {"round": number, "step": step, "rank": rank, "starts": starts, "same": same})
    show("restarts", {"rounds": options.rounds, "steps": last, "back_at_the_first_restart": good})


def launch(command: list[str], log: Path) -> subprocess.Popen[bytes]:
    """torchrun, beside this process; what it prints goes to ``log``."""
    quiet = {**os.environ, "OMP_NUM_THREADS": "1"}
    with log.open("w") as file:
        return subprocess.Popen(command, stdout=file, stderr=subprocess.DEVNULL, env=quiet)


def kill(process: subprocess.Popen[bytes], run: Path, step: int, rank: int) -> None:
    """SIGKILL to a rank of ``process`` when ``step`` is logged."""
    metrics = run / "metrics.jsonl"
    while process.poll() is None and not (metrics.exists() and any(row["step"] >= step for row in read_metrics(run))):
        time.sleep(0.005)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    ranks = {place(int(child)): int(child) for child in children}
    os.kill(ranks[rank], signal.SIGKILL)


def place(process: int) -> int:
    """The rank of a process, by its environment; -1 where it has none."""
    try:
        settings = Path(f"/proc/{process}/environ").read_bytes().split(b"\0")
    except (FileNotFoundError, ProcessLookupError):  # ended meanwhile
        return -1
    return next((int(one.partition(b"=")[2]) for one in settings if one.startswith(b"RANK=")), -1)


def learned(run: Path) -> list[dict[str, Any]]:
    """What was logged, without what is never the same twice."""
    rows = read_metrics(run)
    return [{name: value for name, value in row.items() if name.partition("/")[0] not in UNLIKE} for row in rows]


if __name__ == "__main__":
    main()
