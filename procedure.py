"""A procedure: the runs of one command, where the students of some are the teachers of others."""

from __future__ import annotations

import argparse
import difflib
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, TypeVar

from torch import nn

from models.zoo import NetworkConfig
from networks import open_splits, rehearse
from old_names import FILES, SETTINGS, as_today
from recipe import OF_A_RUN, Recipe
from students import Students, check_shared, read_students
from training.facts import facts_of
from training.fan_out import Run, train_at_once
from training.logs import Extra
from training.manifest import Manifest
from training.run_folder import RunFolder
from training.signals import Stop
from training.state import has_ended
from utils.config import HELP, OldNames, override, pairs, read_configs, restore_file, run_config
from utils.distributed import Ranks, barrier, on_first, print_on_first
from utils.errors import UsageError, naming
from utils.settings import check

Config = TypeVar("Config", bound=NetworkConfig)

OLD = OldNames(SETTINGS, FILES)
_CONFIG = Path(__file__).with_name("imagenet_train_cfg.py")
_METHODS = Path(__file__).with_name("configs") / "methods.py"
_SHARED = ("data", "train_params", "task", "task_options")  # settings that are overridden in all runs at once
_OWN = frozenset(field.name for field in fields(Recipe))


@dataclass(frozen=True)
class Procedure:
    """Runs by name, in the order in which they can be trained; the last one is what the others are for.

    `Students` are trained together, on one stream of batches, and none is for another. Students and teachers with
    ``weights="run:NAME"`` have those of the best student of that run.

    Raises:
        UsageError: a run needs one that does not stand before it, or is called as a section of a recipe is; or has a
            value of another type than its setting.
    """

    runs: Mapping[str, Recipe]

    def __post_init__(self) -> None:
        for recipe in self.runs.values():
            check(recipe)  # what follows reads names of runs and weights
        before: list[str] = []
        for name in () if self.is_together else self.runs:
            if len(self.runs) > 1 and (name in _OWN or "." in name):
                raise UsageError(f"run {name}: give it another name (no dot, and none of {', '.join(sorted(_OWN))})")
            if unknown := [one for one in self.needed_by(name) if one not in before]:
                raise UsageError(
                    f"run {name} needs {OF_A_RUN}{unknown[0]}; before it there is {', '.join(before) or 'none'}"
                )
            before.append(name)
        folders: dict[Path, str] = {}
        for name, recipe in self.runs.items():
            if (other := folders.setdefault(recipe.folder, name)) != name:
                raise UsageError(
                    f"the runs {other} and {name} have one folder, {recipe.folder}: rename a file or a run"
                )

    @property
    def is_together(self) -> bool:
        """Whether the runs share a stream."""
        return isinstance(self.runs, Students)

    @property
    def last(self) -> Recipe:
        """What the others are for."""
        return [*self.runs.values()][-1]

    def needed_by(self, name: str) -> list[str]:
        """The runs that train the teachers of a run, or that its student starts from."""
        weights = [one.weights for one in self.runs[name].networks.values()]
        return [one.removeprefix(OF_A_RUN) for one in weights if one.startswith(OF_A_RUN)]

    def resolved(self) -> dict[str, Recipe]:
        """The runs with the files that each needs of those before it."""
        resolved = {
            name: replace(
                one,
                student=self._resolved(one.student),
                teachers={key: self._resolved(teacher) for key, teacher in one.teachers.items()},
            )
            for name, one in self.runs.items()
        }
        return Students(resolved) if self.is_together else resolved

    def _resolved(self, network: Config) -> Config:
        if not network.weights.startswith(OF_A_RUN):
            return network
        run = self.runs[network.weights.removeprefix(OF_A_RUN)]
        return replace(network, weights=str(run.folder / "student.safetensors"))

    def manifest(self) -> Manifest:
        """What the runs have come to."""
        path = self.last.folder.with_name(f"{self.last.folder.name}.manifest.json")
        return Manifest(path, {name: one.folder for name, one in self.runs.items()})

    def to_train(self, options: argparse.Namespace, ranks: Ranks) -> Iterator[tuple[dict[str, Recipe], bool]]:
        """The runs in order, but for those before the last that have ended; or the `only` one that is asked for.

        Each by itself, or all that share a stream; with whether it starts over: with `fresh` the last one, or the only
        one.

        Raises:
            UsageError: something is wrong with the terms of one, or its folder holds a run with other settings.
        """
        runs, manifest, only = self.resolved(), self.manifest(), options.only
        table = Extra(str(manifest.path))

        def noted(name: str) -> None:
            if ranks.first:
                table.do(lambda: manifest.note(name, "trained"))

        for cfg in runs.values():
            cfg.check_terms()
        if self.is_together and only is None:
            yield runs, options.fresh
            return
        *before, last = runs
        ended = [name for name in before if only is None and _has_ended(runs[name], ranks)]
        todo = [name for name in runs if name not in ended] if only is None else [only]
        for name in todo[1:]:  # what is wrong with one shows before the first is trained
            on_first(lambda name=name: rehearse(self.runs[name]), ranks)  # type: ignore[misc]
        for name in ended:
            print_on_first(f"{runs[name].folder}: trained before")
            noted(name)
        for name in todo:
            cfg = runs[name]
            yield {name: cfg}, options.fresh and name in (only, last)
            if len(runs) > 1 and not self.is_together:
                noted(name)
            barrier()

    def train_at_once(self, script: str, at_a_time: int, stop: Stop) -> None:
        """Train the runs before the last, so many at a time, each by ``script`` with this command line.

        Raises:
            DataError, Stopped: as `fan_out.train_at_once`.
        """
        if "LOCAL_RANK" in os.environ:  # the ranks of the last run
            return
        rehearse(self.last)
        *names, _ = self.runs
        runs = {name: Run(self.runs[name].folder, self.needed_by(name)) for name in names}
        words = [word for word in sys.argv[1:] if word != "--fresh" and not word.startswith("--at_a_time=")]
        if "--at_a_time" in words:
            place = words.index("--at_a_time")
            del words[place : place + 2]
        train_at_once(runs, [script, *words], at_a_time, self.manifest(), stop)

    def overridden(self, overrides: Sequence[str], description: str, notes: dict[str, None]) -> Procedure:
        """The procedure with ``key=value`` overrides: those of `data`, `train_params` and `task` are for all runs,
        `RUN.key=value` for those that RUN names or is a pattern of, and others for the last, or for all students that
        share a stream.

        ``notes`` takes remarks on old names among them.

        Raises:
            UsageError: as `override`.
            SystemExit: help was asked for, and printed.
        """
        *_, last = self.runs
        words: dict[str, list[str]] = {name: [] for name in self.runs}
        words[last] += [one for one in overrides if one in HELP]
        for key, text in pairs([one for one in overrides if one not in HELP]):
            start, _, rest = key.partition(".")
            named = [name for name in self.runs if rest and start not in _OWN and fnmatchcase(name, start)]
            for name in named or (self.runs if self.is_together or start in _SHARED else (last,)):
                words[name].append(f"{rest if named else key}={text}")
        runs = {
            name: override(one, words[name], description, lambda cfg: cfg.option_help, OLD, notes.setdefault)
            for name, one in self.runs.items()
        }
        return Procedure(Students(runs) if self.is_together else runs)


def _has_ended(cfg: Recipe, ranks: Ranks) -> bool:
    """Whether a run of these settings and data came to its end; on every rank.

    Raises:
        UsageError: one of others did; what differs is named.
        DataError: a file of it, or of the data, is damaged.
    """

    def facts() -> dict[str, Any]:
        train, val = open_splits(cfg.data, cfg.made_task())
        return facts_of({"train": train, "val": val}, nn.ModuleDict(), cfg.networks)

    return has_ended(RunFolder(cfg.folder), cfg.epochs, cfg.resume_remarks, facts, ranks)


def read_procedure(
    paths: Sequence[Path], grids: Sequence[str], overrides: Sequence[str], description: str, notes: dict[str, None]
) -> Procedure:
    """The runs of a config; or of several, or of a grid of values, which share a stream.

    Args:
        paths: of the config files.
        grids: KEY=VALUE,VALUE,... each.
        overrides: for all.
        description: for the help.
        notes: takes remarks on old names among them.

    Raises:
        UsageError: as `read_configs`, `read_students` and `override`.
        SystemExit: help was asked for, and printed.
    """
    if grids or len(paths) > 1:
        return Procedure(read_students(paths, grids, overrides, description, OLD, notes))
    runs, rest = read_configs(paths[0], Recipe, overrides, OLD)
    if asked := [given for given in rest if given.startswith("method=")]:
        raise UsageError(f"{asked[0]}: {paths[0]} has no methods; --cfg configs/imagenet.py {asked[0]} has")
    return Procedure(runs).overridden(rest, description, notes)


def read_command_line(description: str) -> tuple[Procedure, argparse.Namespace]:
    """The runs of a config, or the run that is evaluated, with the overrides on the command line, and its flags.

    The flags' ``notes`` are remarks to be printed once.

    Raises:
        UsageError: there is something wrong with them.
        SystemExit: help, which begins with ``description``, or the methods were asked for.
    """
    options, overrides = _flags()
    if options.methods:
        print(_methods(options.cfg[0] if options.cfg else _METHODS))
        raise SystemExit(0)
    notes: dict[str, None] = {}
    evaluated = _run_of(Path(options.eval)) if options.eval else None
    if evaluated is None:
        procedure = read_procedure(options.cfg or [_CONFIG], options.grid, overrides, description, notes)
    else:
        cfg, unknown = restore_file(evaluated / "config.json", Recipe, as_today)
        if ignored := [*unknown, *(f"--cfg {path}" for path in options.cfg)]:
            notes[f"evaluated with {evaluated / 'config.json'}; ignored: {', '.join(ignored)}"] = None
        with naming(f"--eval {options.eval} goes by the settings of its run"):
            procedure = Procedure({"run": cfg}).overridden(overrides, description, notes)
    options.notes = [*notes]
    for cfg in procedure.runs.values():
        cfg.check()
    if procedure.is_together and not options.only:
        check_shared(procedure.runs)
    if options.at_a_time and procedure.is_together:
        raise UsageError("--at_a_time is for runs one after the other, and these students share a stream: leave it out")
    if options.only is not None and options.only not in procedure.runs:
        raise UsageError(f"--only {options.only}: the runs of this config are {', '.join(procedure.runs)}")
    return procedure, options


def _flags() -> tuple[argparse.Namespace, list[str]]:
    """The flags on the command line, and the overrides.

    Raises:
        UsageError: there is no such flag, or two do not go together.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    add = parser.add_argument
    known = (
        add("--cfg", type=Path, action="append", default=[]),
        add("--grid", action="append", default=[]),
        add("--eval"),
        add("--tables", type=Path),
        add("--only"),
        add("--at_a_time", type=int),
        add("--fresh", action="store_true"),
        add("--methods", action="store_true"),
    )
    try:
        options, overrides = parser.parse_known_args()
    except argparse.ArgumentError as error:
        raise UsageError(str(error)) from None
    for given in overrides:
        flags = [one.option_strings[0] for one in known]
        near = difflib.get_close_matches(given.partition("=")[0], flags, cutoff=0.75)
        if near and not given.startswith("method="):
            raise UsageError(f"no option {given}; near: {near[0]}")
    for flag in ("fresh", "only", "at_a_time", "grid"):
        if options.eval and getattr(options, flag):
            raise UsageError(f"--{flag} is for training, and --eval trains nothing: leave one out")
    if options.eval and len(options.cfg) > 1:
        raise UsageError("--eval goes with one --cfg")
    if options.only and options.at_a_time:
        raise UsageError("--only RUN trains one run, --at_a_time several: leave one out")
    if options.tables and not options.eval:
        raise UsageError("--tables FOLDER goes with --eval: a run writes its tables to its own folder")
    if options.at_a_time is not None and options.at_a_time < 1:
        raise UsageError(f"--at_a_time {options.at_a_time}: at least 1")
    return options, overrides


def _methods(path: Path) -> str:
    """The table of the methods of the config file at ``path``.

    Raises:
        UsageError: it has none.
    """
    methods = run_config(path, Recipe, OLD).get("methods")
    if not callable(methods):
        raise UsageError(f"--methods: {path} has no methods; leave --cfg out to see all that there are")
    return methods()


def _run_of(path: Path) -> Path | None:
    """The run folder that ``path`` is, or lies in."""
    folder = path if path.is_dir() else path.parent
    return folder if path.exists() and (folder / "config.json").is_file() else None
