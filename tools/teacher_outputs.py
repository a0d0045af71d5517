"""Fill the store of a teacher's outputs ahead of training, or compare it with the teacher.

    python -m tools.teacher_outputs --cfg config.py [key=value ...]          every epoch that the run shows
    python -m tools.teacher_outputs ... --epochs 1-100 --part 2/8            one of eight machines' share, any order
    torchrun --nproc_per_node=8 -m tools.teacher_outputs ...                 a share on each GPU
    python -m tools.teacher_outputs ... --check                              64 views of every epoch, and write nothing

The config is that of the run, with teachers.NAME.store=FOLDER. A kill loses at most a block of 4,096 samples; the same
command goes on. Shares that were written to several folders are joined by copying these into one.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path

from dataset.loader import TrainLoader, open_split
from networks import live_teacher, memory_format_of
from procedure import read_procedure
from recipe import Recipe
from stored.records import BoxesRecord
from stored_teachers import stored_teacher
from teachers import TeacherConfig
from training.filling import compare, detections, fill, losses
from training.step import autocast
from training.stored import Precision, Stored
from utils.console import resumable
from utils.distributed import barrier, print_on_first, ranks
from utils.errors import UsageError
from utils.files import expanded
from utils.text import counted


@resumable
def main() -> None:
    """Fill, or check, the stores of all teachers of the config that have one."""
    options, cfgs = parse()
    configs = {name: one for cfg in cfgs for name, one in cfg.teachers.items() if one.store}
    if not configs:
        raise UsageError("no teacher of this config has a store: set teachers.NAME.store=FOLDER")
    if any(one.mixed == "linear" for one in configs.values()):
        cfgs = [replace(cfg, data=replace(cfg.data, mixup=0.0, cutmix=0.0)) for cfg in cfgs]
    if options.check:
        cfgs = [replace(cfg, teachers={key: _only_read(one) for key, one in cfg.teachers.items()}) for cfg in cfgs]
    cfg = cfgs[0]
    with ranks(cfg.train_params.timeout_minutes) as place:
        for note in options.notes:
            print_on_first(note, sys.stderr)
        number, of = options.part
        part = (number - 1) * place.world + place.rank, of * place.world
        train = open_split(cfg.data, cfg.data.train_split, cfg.data.train_data_type)
        targets, precision = cfg.made_task().targets(train.classes), partial(autocast, cfg.train_params, place.device)
        with closing(TrainLoader(train, cfg.data, cfg.train_params.seed, 0, 1, place.device, targets)) as loader:
            for name in configs:
                live = partial(live_teacher, cfgs, name, train)
                stored = stored_teacher(cfgs, name, train, live, ahead=True)
                stored.to(place.device).to(memory_format=memory_format_of(cfg))
                epochs = [*dict.fromkeys(map(loader.views_of, options.epochs or stored.epochs))]
                if not options.check:
                    seen = fill(stored, loader, epochs, precision, part, shown=place.first)
                    barrier()
                    print_on_first(f"teachers.{name}: the teacher looked at {counted(seen, 'view')}")
                    if part[0] >= stored.store.blocks:
                        print(
                            f"share {part[0] + 1} of {part[1]} is empty: {counted(stored.store.blocks, 'block')} in all"
                        )
                if place.first:
                    report(cfgs, name, stored, loader, epochs, precision, checks=options.check)


def _only_read(teacher: TeacherConfig) -> TeacherConfig:
    """``teacher`` with a store that is there, of which nothing is removed.

    Raises:
        UsageError: there is none.
    """
    if teacher.store and not expanded(teacher.store, "--check").is_dir():
        raise UsageError(f"--check: {teacher.store} is no folder: fill it first, without --check")
    return replace(teacher, on_damage="stop")


def report(
    cfgs: Sequence[Recipe],
    name: str,
    stored: Stored,
    loader: TrainLoader,
    epochs: Sequence[int],
    precision: Precision,
    *,
    checks: bool,
) -> None:
    """Print bytes, and of views that are there what the layout loses; with ``checks`` compare each epoch first."""
    whole = stored.whole(epochs)
    for epoch in whole if checks else ():
        stored.begin(epoch, loader.device)
        difference = compare(stored, loader, epoch, precision)
        print(f"teachers.{name}: epoch {epoch + 1}: {difference.samples} samples, distance {difference.changed:.2g}")
    print(f"teachers.{name}: {len(whole)} of {counted(len(epochs), 'epoch')} complete in {stored.store.path}")
    shape = stored.store.shape
    assert shape is not None
    a_view = (shape.record + shape.prior / len(epochs)) * len(stored.views)
    priors = f", priors over {counted(len(epochs), 'epoch')} included" if shape.prior else ""
    print(
        f"teachers.{name}: {a_view:.1f} bytes a view{priors}; {a_view * stored.store.samples * len(epochs):,.0f} bytes"
    )
    if whole and stored.record.competing:
        _show_losses(cfgs, name, stored, loader, whole[0], precision)
    if whole and isinstance(stored.record, BoxesRecord):
        _show_detections(cfgs, name, stored, loader, whole[0], precision)


def _show_losses(
    cfgs: Sequence[Recipe], name: str, stored: Stored, loader: TrainLoader, epoch: int, precision: Precision
) -> None:
    """Print the KL divergence of what is kept to the teacher at the temperature of each term, and at 1."""
    temperatures = {1.0: {}, **_by_option(cfgs, name, "temperature", 1.0)}
    stored.begin(epoch, loader.device)
    for temperature, value in losses(stored, loader, epoch, precision, temperatures).items():
        terms = ", ".join(temperatures[temperature])
        print(f"teachers.{name}: KL {value:.4f} at temperature {temperature:g}{terms and f', of {terms}'}")


def _show_detections(
    cfgs: Sequence[Recipe], name: str, stored: Stored, loader: TrainLoader, epoch: int, precision: Precision
) -> None:
    """Print how many detections a view has, and how many each term learns from; and what is lost of them."""
    thresholds = _by_option(cfgs, name, "least_score", 0.0)
    stored.begin(epoch, loader.device)
    of = detections(stored, loader, epoch, precision, thresholds)
    print(f"teachers.{name}: {of.found:.1f} detections a view, of which {of.kept:.1f} are kept")
    for threshold, count in of.sure.items():
        print(f"teachers.{name}: {count:.1f} of score {threshold:g} or more, of {', '.join(thresholds[threshold])}")
    print(f"teachers.{name}: boxes are kept to {of.pixels:.2g} pixels, scores to {of.score:.2g}")


def _by_option(cfgs: Sequence[Recipe], name: str, option: str, default: float) -> dict[float, dict[str, None]]:
    """The terms that read a teacher, by the value of an option of theirs."""
    terms: dict[float, dict[str, None]] = {}
    for cfg in cfgs:
        for term_name, term in cfg.all_terms.items():
            if name in term.teachers_read:
                given = {**term.defaults, **term.options}.get(option, default)
                terms.setdefault(float(given), {})[term_name] = None
    return terms


def parse() -> tuple[argparse.Namespace, list[Recipe]]:
    """Options, and the run of the config; of several the last one, or all that share a stream.

    The options' ``notes`` are remarks to be printed once.

    Raises:
        UsageError: there is something wrong with them.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cfg", type=Path, required=True, action="append", help="config of the run; of several, each")
    parser.add_argument("--grid", action="append", default=[], help="as for training")
    parser.add_argument("--epochs", type=_epochs, help="first and last, from 1: 1-100 (default: those of the run)")
    parser.add_argument("--part", type=_part, default=(1, 1), help="which of how many shares: 2/8 (default: 1/1)")
    parser.add_argument("--check", action="store_true", help="compare what is stored with the teacher")
    options, overrides = parser.parse_known_args()
    if unknown := [word for word in overrides if "=" not in word]:
        raise UsageError(f"no option {unknown[0]}; settings are given as key=value")
    notes: dict[str, None] = {}
    procedure = read_procedure(options.cfg, options.grid, overrides, __doc__ or "", notes)
    options.notes = [*notes]
    resolved = [*procedure.resolved().values()]
    cfgs = resolved if procedure.is_together else resolved[-1:]
    for cfg in cfgs:
        cfg.check()
        cfg.check_terms()
    return options, cfgs


def _epochs(text: str) -> range:
    found = re.fullmatch(r"([1-9]\d*)(?:-([1-9]\d*))?", text)
    if found is None or not int(found[1]) <= int(found[2] or found[1]) <= 10**6:
        raise argparse.ArgumentTypeError(f"{text}: expected the first and the last, such as 1-100")
    return range(int(found[1]) - 1, int(found[2] or found[1]))


def _part(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d+)/(\d+)", text)
    if found is None or not 1 <= int(found[1]) <= int(found[2]):
        raise argparse.ArgumentTypeError(f"{text}: expected one of n, such as 2/8")
    return int(found[1]), int(found[2])


if __name__ == "__main__":
    main()
