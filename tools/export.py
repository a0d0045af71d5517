"""Write the best student of a run as files that need no Limbeck, each compared with the run, and a model card.

    python -m tools.export runs/a                          to runs/a/export: safetensors, torch.export, ONNX, README.md
    python -m tools.export runs/a --formats safetensors    weights alone
    python -m tools.export runs/a --images 500             compare on 500 of the validation images
    python -m tools.export runs/a data.data_path=/data/x   where the validation images are now
    python -m tools.export runs/a --push user/name         and upload it to the Hugging Face hub

What differs from the run by too much is kept as NAME.refused, and the exit code is 3.
"""

from __future__ import annotations

import argparse
import re
import shutil
from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from torch import Tensor

from export.card import about_of, card
from export.check import Look, compare, refused, rows_of, table, validation_split
from export.facts import Facts, facts_of
from export.formats import FILES, Predict, check_onnx, onnx_program_of, program_of, write_programs, write_weights
from export.student import WEIGHTS, Settings, Student, built, classes_of_run, student_of
from models.outputs import FOUND, Outputs, Scene
from utils.config import override
from utils.console import exit_with_its_code
from utils.errors import DataError, UsageError
from utils.files import make_folder, sync_folder, write_atomically
from utils.settings import settings

CARD = "README.md"


@exit_with_its_code
def main() -> None:
    """Export the run on the command line."""
    options, overrides = parse()
    if options.push:
        check_hub(options.push)
    student, facts = student_of(options.run), facts_of(options.run)
    student = replace(student, settings=with_overrides(student.settings, overrides))
    formats = formats_for(options.formats)
    if "onnx" in formats:
        check_onnx()
    val = validation_split(student, facts.data["val"]["sha256"])
    output = options.output or options.run / "export"
    make_folder(output, "--output")
    beside = output / ".partial"  # what a kill leaves is here, and goes with the next export
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir()
    try:
        exported = write(student, facts, formats, beside)
        checked = compare(student, forms_of(exported, formats, beside), val, options.images)
        primary, logged = student.settings.made_task().primary, facts.scores.get(student.settings.made_task().primary)
        print(table(rows_of(checked, primary, logged)))
        bad = refused(checked, primary, logged)
        if not bad:
            write_atomically(beside / CARD, card(exported, facts, checked, formats, options.run).encode())
        names = place(beside, output, bad)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    if bad:
        kept = f". For a look: {', '.join(names)}" if names else ""
        raise DataError(
            f"{options.run} is not exported: {'; '.join(f'{name}: {reason}' for name, reason in bad.items())}{kept}"
        )
    for name in names:
        print(output / name)
    if options.push:
        print(push(output, names, options.push))


def parse() -> tuple[argparse.Namespace, list[str]]:
    """Options, and what is left for settings.

    Raises:
        UsageError: there is something wrong with them.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="run folder")
    parser.add_argument("--output", type=Path, help="folder to write to (default: export in the run)")
    known = ", ".join(FILES)
    parser.add_argument("--formats", nargs="+", choices=FILES, metavar="FORMAT", help=f"of {known} (default: all)")
    parser.add_argument("--images", type=int, help="of the validation images, so many, spread over the split")
    parser.add_argument("--push", metavar="USER/NAME", help="upload to the Hugging Face hub, to a new one privately")
    options, overrides = parser.parse_known_args()
    if unknown := [word for word in overrides if word.startswith("-") or "=" not in word]:
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    if options.images is not None and options.images < 1:
        raise UsageError(f"--images {options.images}: at least 1")
    return options, overrides


def with_overrides(given: Settings, overrides: Sequence[str]) -> Settings:
    """``given`` with settings of where the data is and how it is read.

    Raises:
        UsageError: another setting, which would change what the network is shown.
    """
    free = {one.key for one in settings(given) if not one.affects_result and one.key.startswith("data.")}
    for word in overrides:
        if (key := word.partition("=")[0]) not in free:
            raise UsageError(f"{key}: it stays as in the run; what may be set: {', '.join(sorted(free))}")
    return override(given, overrides)


def formats_for(asked: Sequence[str] | None) -> list[str]:
    """The formats that are written, in order: those ``asked`` for, else all; weights always."""
    return [name for name in FILES if name in ("safetensors", *(asked or FILES))]


def write(student: Student, facts: Facts, formats: Sequence[str], folder: Path) -> Student:
    """Write ``formats`` to ``folder``; returns the student that the weights there are of, which the programs show.

    Raises:
        UsageError: it has no form in one of them.
        DataError: the disk is full or cannot be written.
    """
    about = about_of(student, facts)
    weights = folder / WEIGHTS
    write_weights(student, weights, about)
    count = len(classes_of_run(student.folder))
    exported = built(folder, student.settings, str(weights), student.classes[:count])
    paths = {name: folder / FILES[name] for name in formats if name != "safetensors"}
    write_programs(exported, paths, about)
    return exported


def forms_of(exported: Student, formats: Sequence[str], folder: Path) -> dict[str, Look]:
    """What each file of an exported folder gives for images, by its name."""
    forms: dict[str, Look] = {WEIGHTS: exported.network.predict}
    through = _detected if exported.settings.made_task().detects else partial(_through, exported.output)
    for name, opened in (("pt2", program_of), ("onnx", onnx_program_of)):
        if name in formats:
            forms[FILES[name]] = partial(through, opened(folder / FILES[name]))
    return forms


def _through(output: str, program: Predict, images: Tensor, _scene: Scene) -> Outputs:
    given = program(images)
    return Outputs(given, {} if output == "logits" else {output: given})


def _detected(program: Predict, images: Tensor, scene: Scene) -> Outputs:
    return Outputs(images.new_empty(0), {}, dict(zip(FOUND, program(images, scene.sizes))))


def place(beside: Path, output: Path, bad: Collection[str]) -> list[str]:
    """Give what is ``beside`` its place in ``output``, and take away what an earlier export left there.

    Returns:
        Names of what is there now: all, or where some are ``bad`` these alone, as NAME.refused.
    """
    written = sorted(path.name for path in beside.iterdir())
    kept = [name for name in written if name in bad] if bad else written
    names = {name: f"{name}.refused" if bad else name for name in kept}
    for name in (CARD, *FILES.values()):
        for old in (name, f"{name}.refused"):
            if old not in names.values():
                (output / old).unlink(missing_ok=True)
    for name, now in names.items():
        (beside / name).replace(output / now)
    sync_folder(output)
    return [*names.values()]


def check_hub(name: str) -> None:
    """See that a folder can be uploaded as ``name``.

    Raises:
        UsageError: it is no name of the hub, or huggingface-hub is not installed.
    """
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        raise UsageError(f"--push {name}: expected user/name")
    if find_spec("huggingface_hub") is None:
        raise UsageError("--push needs huggingface-hub: pip install huggingface-hub")


def push(folder: Path, names: Sequence[str], to: str) -> str:
    """Upload files of ``folder`` to the Hugging Face hub; one that is not there is made, for its owner's eyes alone.

    Args:
        folder: what was exported.
        names: of the files.
        to: user/name.

    Returns:
        Where they are now.

    Raises:
        UsageError: the hub refuses, or cannot be reached.
    """
    import huggingface_hub

    hub = huggingface_hub.HfApi()
    try:
        hub.create_repo(to, private=True, exist_ok=True)
        hub.upload_folder(repo_id=to, folder_path=folder, allow_patterns=[*names], commit_message="Exported by Limbeck")
    except Exception as error:  # of the network and of the hub, many
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise UsageError(f"--push {to}: {reason}; the files are in {folder}") from None
    return f"{hub.endpoint}/{to}"


if __name__ == "__main__":
    main()
