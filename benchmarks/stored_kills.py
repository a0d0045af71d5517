"""A store of teacher outputs whose writer is killed again and again: does it end with the same bytes?

    make demo    # packs the digits
    python -m benchmarks.stored_kills [--kills 100] [--writers filler run] [--work FOLDER] [key=value ...]

SIGKILL takes the tool that fills the store ahead of training (`filler`), and a run that fills it while it trains
(`run`), at random times; the same command goes on. When it has come to its end the store is compared with one whose
writer nothing befell, the run's student too, and another begins, until there were --kills of each. `times_equal` counts
how often all bytes were equal.
"""

from __future__ import annotations

import argparse
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.common import check_counts, show
from models.weights import packed
from models.zoo import NetworkConfig, build_network
from utils.console import exit_with_its_code, progress
from utils.errors import DataError
from utils.files import write_atomically

CONFIG = ("--cfg", "configs/digits.py", "method=wsld", "teachers.teacher.expect=0")
WRITERS = {
    "filler": (["-m", "tools.teacher_outputs"], ["--epochs", "1-8"]),
    "run": (["train_with_distillation.py"], ["train_params.checkpoint_steps=7", "epochs=5"]),
}


@exit_with_its_code
def main() -> None:
    """Kill the tool, then the run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100, help="of each (default: 100)")
    parser.add_argument("--writers", nargs="+", choices=WRITERS, default=[*WRITERS], help="default: both")
    parser.add_argument("--work", type=Path, default=Path("runs/stored_kills"), help="folder; emptied first")
    options, overrides = parser.parse_known_args()
    check_counts(kills=options.kills)
    shutil.rmtree(options.work, ignore_errors=True)
    options.work.mkdir(parents=True)
    weights = options.work / "teacher.safetensors"
    write_atomically(weights, packed(build_network(NetworkConfig("cifar_resnet20"), 10).network.state_dict()))
    words = [*CONFIG, f"teachers.teacher.weights={weights}", "teachers.teacher.layout.name=prior"]
    words += ["teachers.teacher.layout.k=4", *overrides]
    for name in options.writers:
        script, more = WRITERS[name]
        show("stored_kills", {"writer": name, **killed(options, [*script, *words, *more], name)})


def killed(options: argparse.Namespace, command: list[str], name: str) -> dict[str, object]:
    """What ``command`` comes to when it is killed so often."""
    whole = options.work / f"{name}_whole"
    begun = time.monotonic()
    if start(command, whole).wait():
        raise DataError(f"{' '.join(command)} did not end well: run it by hand to see why")
    duration, draws = time.monotonic() - begun, random.Random(0)
    kills, ends, equal = 0, 0, 0
    with progress(total=options.kills, desc=name, unit="kill") as bar:
        while kills < options.kills:
            again = options.work / name
            shutil.rmtree(again, ignore_errors=True)
            while True:
                process = start(command, again)
                try:
                    code = process.wait(draws.uniform(0.3, 1) * duration) if kills < options.kills else process.wait()
                    break
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
                    kills += 1
                    bar.update()
            ends += 1
            equal += code == 0 and content(again) == content(whole)
    return {"kills": kills, "times_ended": ends, "times_equal": equal}


def start(command: list[str], folder: Path) -> subprocess.Popen[bytes]:
    """``command`` with its store and its run in ``folder``."""
    places = [f"teachers.teacher.store={folder / 'store'}", f"train_params.output_path={folder}", "name=run"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen([sys.executable, *command, *places], **quiet)  # type: ignore[call-overload]


def content(folder: Path) -> dict[str, bytes]:
    """Every file of the store, and the student where there is one."""
    files = [*(folder / "store").rglob("*"), *folder.glob("run/student.safetensors")]
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(files) if path.is_file()}


if __name__ == "__main__":
    main()
