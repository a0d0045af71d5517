"""Top-1 of methods by pairs over seeds, beside the published scores.

    python dataset/cifar2lmdb.py --image_path /data/cifar-100-python --output_path /data/cifar100
    python -m benchmarks.table --methods kd dkd crd --pairs resnet32x4/resnet8x4 vgg13/vgg8 --seeds 3 \\
        data.data_path=/data/cifar100 [key=value ...]

Methods are those of configs/methods.py on CIFAR-100 (--on: on another data set). For each pair the teacher is trained
first, and the student alone beside the methods, each run by train_with_distillation.py with the same further overrides,
but for `terms.`, `phases.` and `teachers.`, which go to the methods that have such a setting. Scores are those of the
last epoch. Interrupted, the same command resumes; runs that are done are not repeated.

Where there is no GPU this proves the command in minutes, on any small dataset:

    python -m benchmarks.table --methods kd at --pairs resnet20/resnet8 --seeds 2 \\
        data.data_path=/data/small epochs=2 optim.milestones=1
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from statistics import mean, stdev

from benchmarks.common import check_counts, check_methods, config_of, machine
from configs._method import ALONE
from configs.methods import METHODS
from figures.curves import read_metrics
from procedure import OLD
from recipe import Recipe
from utils.config import override, read_config
from utils.console import exit_with_its_code
from utils.errors import UsageError
from utils.files import write_atomically

SCRIPT = "train_with_distillation.py"
Scores = dict[str, dict[str, list[float]]]  # pair -> row -> top-1 of each seed


@exit_with_its_code
def main() -> None:
    """Run what is missing and print the table; `table.json` holds what is known so far."""
    options, overrides = parse()
    given = overrides_by_method(options, overrides)
    scores: Scores = {}
    for pair in options.pairs:
        teacher, student = pair.split("/")
        scores[pair] = rows = {}
        rows["teacher"] = [run(options, given[ALONE], ALONE, 0, student=teacher)]
        weights = options.work / f"{ALONE}_{teacher}_seed0" / "student.safetensors"
        rows["student alone"] = [
            run(options, given[ALONE], ALONE, seed, student=student) for seed in range(options.seeds)
        ]
        for method in options.methods:
            rows[method] = []
            for seed in range(options.seeds):
                extra = [f"teachers.teacher.weights={weights.resolve()}", *given[method]]
                rows[method].append(run(options, extra, method, seed, teacher=teacher, student=student))
                report(options, scores)
    print(table(options, scores))


def overrides_by_method(options: argparse.Namespace, overrides: list[str]) -> dict[str, list[str]]:
    """The overrides for the runs of each method, and of networks alone, which are tried.

    Raises:
        UsageError: one of terms, phases or teachers that fits no method, or another that does not fit every method.
    """
    teacher, student = options.pairs[0].split("/")
    own = {one for one in overrides if one.startswith(("first.", "phases.", "terms.", "teachers."))}
    given = {}
    for method in (ALONE, *options.methods):
        asked = [f"method={method}", f"student={student}", *([f"teacher={teacher}"] if method != ALONE else [])]
        recipe, rest = read_config(config_of(options.on), Recipe, [*asked, *overrides])
        foreign = own if method == ALONE else {one for one in own if not _fits(recipe, one)}
        given[method] = [one for one in overrides if one not in foreign]
        override(recipe, [one for one in rest if one not in foreign], old=OLD)
    if unused := own.difference(*given.values()):
        raise UsageError(f"no method has the setting of {', '.join(sorted(unused))}")
    return given


def _fits(recipe: Recipe, key_value: str) -> bool:
    """Whether the method has the term, the phase or the teacher that ``key_value`` sets something of."""
    part, name, *_ = key_value.partition("=")[0].split(".")
    known: dict[str, Mapping[str, object]] = {"terms": recipe.last.terms, "teachers": recipe.teachers}
    return name in known.get(part, recipe.phases)


def run(options: argparse.Namespace, overrides: list[str], method: str, seed: int, **pair: str) -> float:
    """Top-1 after the last epoch of a run, which is trained unless it is done."""
    name = "_".join([method, *pair.values(), f"seed{seed}"])
    command = [sys.executable, SCRIPT, "--cfg", str(config_of(options.on)), f"method={method}", f"name={name}"]
    command += [f"train_params.seed={seed}", f"train_params.output_path={options.work}"]
    folder = options.work / name
    command += [f"{network}={value}" for network, value in pair.items()] + overrides
    asked = folder / "command.json"
    if not (asked.exists() and json.loads(asked.read_text()) == command):
        print(f"{name}: training", file=sys.stderr)
        code = subprocess.run(command).returncode
        if code != 0:
            raise SystemExit(code)
        write_atomically(asked, json.dumps(command).encode())
    return [row["top1"] for row in read_metrics(folder) if row["kind"] == "val"][-1]


def report(options: argparse.Namespace, scores: Scores) -> None:
    """Write what is known so far."""
    write_atomically(options.work / "table.json", json.dumps({"top1": scores, "machine": machine()}, indent=1).encode())


def table(options: argparse.Namespace, scores: Scores) -> str:
    """Markdown, a column a pair."""
    lines = ["| | " + " | ".join(scores) + " |", "|---" * (len(scores) + 1) + "|"]
    for row in next(iter(scores.values())):
        cells = []
        for pair, rows in scores.items():
            spread = f" +- {stdev(rows[row]):.2f}" if len(rows[row]) > 1 else ""
            known = _published(options.on, row, *pair.split("/"))
            cells.append(f"{mean(rows[row]):.2f}{spread}" + (f" (published {known:.2f})" if known else ""))
        lines.append(f"| {row} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _published(data: str, row: str, teacher: str, student: str) -> float | None:
    alone = {"teacher": (ALONE, teacher), "student alone": (ALONE, student)}
    return METHODS[ALONE if row in alone else row].on[data].published.scores.get(alone.get(row, (teacher, student)))


def parse() -> tuple[argparse.Namespace, list[str]]:
    """Options, and the overrides for the runs.

    Raises:
        UsageError: a method that is not of one teacher, a count below 1, or a pair that is not teacher/student.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", required=True, help="such as kd dkd crd")
    parser.add_argument("--pairs", nargs="+", required=True, metavar="TEACHER/STUDENT")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each cell (default: 3)")
    parser.add_argument("--on", choices=("cifar100", "imagenet"), default="cifar100", help="default: cifar100")
    parser.add_argument("--work", type=Path, default=Path("runs/table"), help="where the runs go")
    options, overrides = parser.parse_known_args()
    position = next((number for number, pair in enumerate(options.pairs) if "=" in pair), len(options.pairs))
    options.pairs, overrides = options.pairs[:position], [*options.pairs[position:], *overrides]
    check_counts(seeds=options.seeds)
    check_methods(options.methods, options.on)
    if bad := [pair for pair in options.pairs if pair.count("/") != 1] or not options.pairs:
        raise UsageError(f"--pairs {bad}: expected teacher/student, such as resnet32x4/resnet8x4")
    return options, overrides


if __name__ == "__main__":
    main()
