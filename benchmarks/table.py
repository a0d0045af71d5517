"""Top-1 of methods by pairs over seeds, beside the published scores.

    python dataset/cifar2lmdb.py --image_path /data/cifar-100-python --output_path /data/cifar100
    python -m benchmarks.table --methods kd dkd crd --pairs resnet32x4/resnet8x4 vgg13/vgg8 --seeds 3 \\
        data.data_path=/data/cifar100 [key=value ...]

Methods are the pages of configs/cifar100 (--pages: of another folder). For each pair the teacher is trained first, and
the student alone beside the methods, each run by train_with_distillation.py with the same further words, but for
`terms.`, `first.` and `teachers.`, which go to the methods that have such a setting. Scores are those after the last
epoch. Interrupted, the same command goes on; runs that are done are not repeated.

Where there is no GPU this proves the command in minutes, on any small dataset:

    python -m benchmarks.table --methods kd at --pairs resnet20/resnet8 --seeds 2 \\
        data.data_path=/data/small train_params.epochs=2 optim.milestones=1
"""

from __future__ import annotations

import argparse
import json
import runpy
import subprocess
import sys
from pathlib import Path
from statistics import mean, stdev

from benchmarks.common import check_counts, check_methods, machine
from figures.curves import read_metrics
from recipe import Recipe
from utils.config import override, read_page
from utils.console import exit_with_its_code
from utils.errors import UsageError
from utils.files import write_atomically

DOOR = "train_with_distillation.py"
Scores = dict[str, dict[str, list[float]]]  # pair -> row -> top-1 of each seed


@exit_with_its_code
def main() -> None:
    """Run what is missing and print the table; `table.json` holds what is known so far."""
    options, words = parse()
    given = words_by_page(options, words)
    scores: Scores = {}
    for pair in options.pairs:
        teacher, student = pair.split("/")
        scores[pair] = rows = {}
        rows["teacher"] = [run(options, given["teacher"], "teacher", 0, student=teacher)]
        weights = options.work / f"teacher_{teacher}_seed0" / "student.safetensors"
        rows["student alone"] = [
            run(options, given["teacher"], "teacher", seed, student=student) for seed in range(options.seeds)
        ]
        for method in options.methods:
            rows[method] = []
            for seed in range(options.seeds):
                taught = [f"teachers.teacher.weights={weights.resolve()}", *given[method]]
                rows[method].append(run(options, taught, method, seed, teacher=teacher, student=student))
                report(options, scores)
    print(table(options, scores))


def words_by_page(options: argparse.Namespace, words: list[str]) -> dict[str, list[str]]:
    """The words for the runs of each page, which are tried on it.

    Raises:
        UsageError: a word of terms or first stages that fits no method, or another that does not fit every page.
    """
    teacher, student = options.pairs[0].split("/")
    own = {word for word in words if word.startswith(("first.", "terms.", "teachers."))}
    given = {}
    for method in ("teacher", *options.methods):
        pair = [f"student={student}"] if method == "teacher" else [f"teacher={teacher}", f"student={student}"]
        recipe, rest = read_page(options.pages / f"{method}.py", Recipe, [*pair, *words])
        foreign = own if method == "teacher" else {word for word in own if not _fits(recipe, word)}
        given[method] = [word for word in words if word not in foreign]
        override(recipe, [word for word in rest if word not in foreign], "")
    if unused := own.difference(*given.values()):
        raise UsageError(f"no method has the setting of {', '.join(sorted(unused))}")
    return given


def _fits(recipe: Recipe, word: str) -> bool:
    """Whether the page has the term, the first stage or the teacher that ``word`` sets something of."""
    part, name, *_ = word.partition("=")[0].split(".")
    return name in getattr(recipe, part)


def run(options: argparse.Namespace, words: list[str], method: str, seed: int, **pair: str) -> float:
    """Top-1 after the last epoch of a run, which is trained unless it is done."""
    name = "_".join([method, *pair.values(), f"seed{seed}"])
    command = [sys.executable, DOOR, "--cfg", str(options.pages / f"{method}.py"), f"name={name}"]
    command += [f"train_params.seed={seed}", f"train_params.output_path={options.work}"]
    folder = options.work / name
    command += [f"{network}={value}" for network, value in pair.items()] + words
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
    published = {
        method: runpy.run_path(str(options.pages / f"{method}.py")).get("published", {}) for method in options.methods
    }
    lines = ["| | " + " | ".join(scores) + " |", "|---" * (len(scores) + 1) + "|"]
    for row in next(iter(scores.values())):
        cells = []
        for pair, rows in scores.items():
            spread = f" +- {stdev(rows[row]):.2f}" if len(rows[row]) > 1 else ""
            known = published.get(row, {}).get(tuple(pair.split("/")))
            cells.append(f"{mean(rows[row]):.2f}{spread}" + (f" (published {known:.2f})" if known else ""))
        lines.append(f"| {row} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def parse() -> tuple[argparse.Namespace, list[str]]:
    """Options, and the words for the runs.

    Raises:
        UsageError: a method that is no page of one teacher, a count below 1, or a pair that is not teacher/student.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", required=True, help="pages, without .py")
    parser.add_argument("--pairs", nargs="+", required=True, metavar="TEACHER/STUDENT")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each cell (default: 3)")
    parser.add_argument("--pages", type=Path, default=Path("configs/cifar100"), help="default: configs/cifar100")
    parser.add_argument("--work", type=Path, default=Path("runs/table"), help="where the runs go")
    options, words = parser.parse_known_args()
    position = next((number for number, pair in enumerate(options.pairs) if "=" in pair), len(options.pairs))
    options.pairs, words = options.pairs[:position], [*options.pairs[position:], *words]
    check_counts(seeds=options.seeds)
    check_methods(options.methods, options.pages)
    if not (options.pages / "teacher.py").exists():
        raise UsageError(f"--pages {options.pages}: there is no teacher.py, which trains the teachers")
    if bad := [pair for pair in options.pairs if pair.count("/") != 1] or not options.pairs:
        raise UsageError(f"--pairs {bad}: expected teacher/student, such as resnet32x4/resnet8x4")
    return options, words


if __name__ == "__main__":
    main()
