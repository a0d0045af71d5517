"""A page about one run or several: one HTML file that needs no network and no other file.

    python -m figures.report runs/x [runs/y ...] [--images 2000] [--output report.html]

It has the settings and where they differ, curves, scores of each class, confusions, the images that the student misses
and the teacher does not, agreement with the teacher, WSLD's weights, where and with what each run was trained. Runs
that differ in their seed alone stand together, with mean and spread. A run that is still training shows what it has.
In place of a run, the .manifest.json of a procedure stands for all its runs.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from figures.outputs import outputs_of_run
from figures.regularization import Effect, measure
from figures.report.data import Group, folders_of, grouped, read_run
from figures.report.page import page
from figures.report.seen import benches
from utils.console import exit_with_its_code
from utils.errors import DataError, UsageError
from utils.files import check_output, write_atomically
from utils.text import counted

_NAME = "report.html"


def write(folders: Sequence[Path], output: Path, images: int, command: Sequence[str] = ()) -> None:
    """Write the page about the runs in ``folders``.

    Args:
        folders: of the runs.
        output: file to write.
        images: that each network is shown, at most: validation images, and for WSLD's weights training images.
        command: that makes the page.

    Raises:
        DataError: the settings of a run are damaged, or the file cannot be written.
    """
    groups = grouped([read_run(folder) for folder in folders])
    seen = benches([run for group in groups for run in group.runs], images)
    looked_at = {run for bench in seen for run in bench.students}
    effects: dict[int, Effect] = {}
    for group in groups:
        terms = [term for term in group.first.terms.values() if term.get("objective") == "wsld"]
        if terms and group.first.path in looked_at and (effect := _effect(group, terms[0], images)):
            effects[group.number] = effect
    content = page(groups, seen, effects, command).encode("utf-8", "backslashreplace")
    write_atomically(output, content)
    print(f"{output}: {counted(len(folders), 'run')}, {len(content) / 1e6:.1f} MB")


def _effect(group: Group, term: dict, images: int) -> Effect | None:
    """What WSLD does with training images of the group's first run; None where its note says why that is not known."""
    run = group.first
    try:
        student, *teachers = outputs_of_run(run.path, teachers=True, images=images, split="train")
        named = term.get("teacher", "teacher")
        of_term = [one for one in teachers if one.name in ([named] if isinstance(named, str) else named)]
        if len(of_term) != 1:
            raise UsageError(f"its term has {counted(len(of_term), 'teacher')}, and the picture is of one")
        return measure(student, of_term[0])
    except (UsageError, DataError) as error:
        run.notes.append(f"the weights of WSLD are not known: {error}")
    return None


@exit_with_its_code
def main() -> None:
    """Write the page about the runs on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="run folders")
    parser.add_argument("--images", type=int, default=2000, help="that each network is shown, at most (default: 2000)")
    parser.add_argument("--output", type=Path, help=f"HTML to write (default: {_NAME} in the run, or beside several)")
    options = parser.parse_args()
    if options.images < 1:
        raise UsageError(f"--images {options.images}: at least 1")
    folders = folders_of(options.runs)
    output = options.output or (folders[0].parent if len(folders) > 1 else folders[0]) / _NAME
    if output.suffix not in (".html", ".htm") or not output.parent.is_dir():
        raise UsageError(f"--output {output}: name a .html file in a folder that exists")
    check_output(output)
    write(folders, output, options.images, ["python", "-m", "figures.report", *sys.argv[1:]])


if __name__ == "__main__":
    main()
