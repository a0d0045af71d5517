"""What a config is made of: the sections of one training run, each defined beside the component that reads it."""

from __future__ import annotations

import argparse
import difflib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import nn

import tasks
from dataset.loader import DataConfig
from knowledge_distiller import Term
from models.zoo import NetworkConfig
from old_names import FILES, SETTINGS, as_today
from teachers import TeacherConfig, teacher_of
from training.loop import TrainConfig
from training.phases import Phase
from utils.config import OldNames, differences, override, read_config, restore, restore_file, run_config
from utils.errors import UsageError
from utils.settings import about, check, left_out, settings, show

OLD = OldNames(SETTINGS, FILES)
_CONFIG = Path(__file__).with_name("imagenet_train_cfg.py")
_METHODS = Path(__file__).with_name("configs") / "methods.py"


@dataclass(frozen=True)
class Recipe:
    """One run: what is learned from what, and how."""

    name: str = field(metadata=about(affects_result=False))
    """the run's folder below train_params.output_path"""
    data: DataConfig
    student: NetworkConfig
    teachers: dict[str, TeacherConfig]
    """frozen networks, by the name that terms refer to; none for plain training"""
    phases: dict[str, Phase] = field(metadata=about(in_short=True))
    """its parts, by name, in order; one for most methods"""
    train_params: TrainConfig = TrainConfig()
    task: str = "single_label"
    """what is learned: single_label, or one of your own"""

    def __post_init__(self) -> None:
        object.__setattr__(self, "teachers", {name: teacher_of(one) for name, one in self.teachers.items()})

    @property
    def folder(self) -> Path:
        """Where it leaves what it made."""
        return Path(self.train_params.output_path, self.name)

    @property
    def last(self) -> Phase:
        """The last phase: for most methods the only one."""
        return [*self.phases.values()][-1]

    @property
    def all_terms(self) -> dict[str, Term]:
        """The terms of all phases.

        Raises:
            UsageError: two terms of one name differ in more than their weights.
        """
        terms: dict[str, Term] = {}
        places: dict[str, str] = {}
        for place, phase in self._places():
            for name, term in phase.terms.items():
                known, first = terms.setdefault(name, term), places.setdefault(name, f"{place}terms.{name}")
                if replace(term, weight=known.weight, ramp=known.ramp) != known:
                    raise UsageError(f"{place}terms.{name} differs from {first}: set both alike, or rename one")
        return terms

    @property
    def unused_settings(self) -> list[str]:
        """Settings with a value of their own that has no effect, each with the one that makes it so."""
        return [f"{one.key}={show(one.value)} has no effect with {one.unused}" for one in settings(self) if one.unused]

    @property
    def option_help(self) -> str:
        """The options of the terms' objectives, as the command line takes them."""
        lines = ["", "Options of the objectives of this config, with their defaults:", ""]
        for place, phase in self._places():
            for name, term in phase.terms.items():
                start = f"  {place}terms.{name}.options"
                lines += [f"{start}.{option}={show(value)}" for option, value in term.defaults.items()]
        return "\n".join([*lines, "", "docs/objectives.md lists all objectives."])

    def check(self) -> None:
        """Raises UsageError where a value is of another type, or out of its range, or two do not go together."""
        check(self)
        self.data.check()
        if not self.name.isprintable() or self.name != self.name.strip() or not _is_below(self.name):
            raise UsageError(
                f"name={self.name}: expected a folder below train_params.output_path, without .., a leading or a "
                "trailing /"
            )
        if not self.phases:
            raise UsageError("phases: a run needs at least one")
        for name in (*(f"teachers.{name}" for name in self.teachers), *(f"phases.{name}" for name in self.phases)):
            own = name.partition(".")[2]
            if not own.strip() or "." in own or own == "student" or hasattr(nn.ModuleDict, own):
                raise UsageError(f"{name}: give it another name (without a dot, and not of a part of the program)")
        for place, phase in self._places():
            phase.optim.check(f"{place}optim.")
        self.student.head.made("student.head")
        for name, teacher in self.teachers.items():
            teacher.head.made(f"teachers.{name}.head")

    def network(self, what: str) -> NetworkConfig:
        """A teacher by its name, the student, or that one with the weights of a file or the best of a run's folder.

        Raises:
            UsageError: there is no such thing, or the run has no best one yet.
        """
        if (known := {"student": self.student, **self.teachers}.get(what)) is not None:
            return known
        if not Path(what).exists():
            names = ", ".join(["student", *self.teachers])
            raise UsageError(f"--eval {what}: neither a file, nor a run's folder, nor one of {names}")
        path = Path(what, "best.pt") if Path(what).is_dir() else Path(what)
        if not path.exists():
            raise UsageError(f"{what} holds no best.pt: train that run for an epoch first")
        return replace(self.student, weights=str(path.resolve()))

    def check_terms(self) -> None:
        """Raises UsageError where a term reads what is not there, or mixed images have a label too many for it."""
        for place, phase in self._places():
            for name, term in phase.terms.items():
                key = f"{place}terms.{name}: {term.objective}"
                if name in tasks.get(self.task).running_scores:
                    raise UsageError(f"{place}terms.{name}: the log has a score of this name; give it another")
                if unknown := [one for one in term.teachers_read if one not in self.teachers]:
                    known = ", ".join(self.teachers) or "none"
                    raise UsageError(f"{place}terms.{name}: no teacher {unknown[0]!r}; there is {known}")
                if "strong" in term.views and not self.data.strong_view:
                    raise UsageError(f"{key} reads strong views; set data.strong_view=True")
                if (self.data.mixup or self.data.cutmix) and term.knows_one_label:
                    raise UsageError(f"{key} knows one label an image; set data.mixup=0 data.cutmix=0")

    def resume_remarks(self, begun: Mapping[str, Any]) -> Iterator[str]:
        """Remarks on a run that began with the settings ``begun``, its config.json, and resumes with these.

        Raises:
            UsageError: other values of settings that decide what is learned; all are named.
        """
        old, unknown = restore(Recipe, as_today(begun, [*self.phases][-1]))
        changed = differences(*(json.loads(json.dumps(asdict(one))) for one in (old, self)))
        free = {one.key for one in settings(self) if not one.affects_result}
        longer = list(old.phases) == list(self.phases) and old.last.epochs < self.last.epochs
        if longer and self.last.optim.schedule == "step":  # it goes by steps, not by shares
            free.add("epochs")
        changed = {key.removeprefix(left_out(self)): values for key, values in changed.items()}
        shown = {key: f"{key} {before!r} -> {now!r}" for key, (before, now) in changed.items()}
        if refused := {key: text for key, text in shown.items() if key not in free}:
            advice = ""
            if "epochs" in refused and longer:
                advice = (
                    f"A {self.last.optim.schedule} schedule cannot be lengthened: start from the student instead, with "
                    f"student.weights={self.folder / 'student.safetensors'} and another name. "
                )
            raise UsageError(
                f"{self.folder} holds a run with other settings: {'; '.join(refused.values())}. {advice}"
                "Set another name=..., or start over with --fresh"
            )
        if shown:
            yield f"resumes with other settings: {'; '.join(shown.values())}"
        if unknown:
            yield f"settings of another version are ignored: {', '.join(unknown)}"
        if "phases" not in begun and (self.data.mixup or self.data.cutmix or self.data.strong_view):
            yield "an older version began it: mixup, cutmix and strong views are drawn for each sample from here on"

    def _places(self) -> Iterator[tuple[str, Phase]]:
        """The phases, each with the beginning of its settings' keys."""
        for name, phase in self.phases.items():
            yield f"phases.{name}.".removeprefix(left_out(self)), phase


def read_command_line(description: str) -> tuple[Recipe, argparse.Namespace]:
    """The settings of a config, or of the run that is evaluated, with the overrides on the command line, and its flags.

    The flags' ``notes`` are remarks to be printed once.

    Raises:
        UsageError: there is something wrong with them.
        SystemExit: help, which begins with ``description``, or the methods were asked for.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--cfg", type=Path)
    parser.add_argument("--eval")
    parser.add_argument("--fresh", action="store_true")
    parser.add_argument("--methods", action="store_true")
    try:
        options, overrides = parser.parse_known_args()
    except argparse.ArgumentError as error:
        raise UsageError(str(error)) from None
    flags = ("--cfg", "--eval", "--fresh", "--methods")
    for given in overrides:
        near = difflib.get_close_matches(given.partition("=")[0], flags, cutoff=0.75)
        if near and not given.startswith("method="):
            raise UsageError(f"no option {given}; near: {near[0]}")
    if options.methods:
        print(_methods(options.cfg or _METHODS))
        raise SystemExit(0)
    if options.eval and options.fresh:
        raise UsageError("--fresh starts a run over, and --eval starts none: leave one out")
    options.notes = []
    run = _run_of(Path(options.eval)) if options.eval else None
    if run is None:
        path = options.cfg or _CONFIG
        cfg, overrides = read_config(path, Recipe, overrides, OLD)
        if asked := [given for given in overrides if given.startswith("method=")]:
            raise UsageError(f"{asked[0]}: {path} has no methods; --cfg configs/imagenet.py {asked[0]} has")
    else:
        cfg, unknown = restore_file(run / "config.json", Recipe, as_today)
        unknown += [f"--cfg {options.cfg}"] if options.cfg else []
        if unknown:
            options.notes.append(f"evaluated with {run / 'config.json'}; ignored: {', '.join(unknown)}")
    cfg = override(cfg, overrides, description, lambda cfg: cfg.option_help, OLD, options.notes.append)
    cfg.check()
    return cfg, options


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


def _is_below(name: str) -> bool:
    """Whether ``name`` is a plain path of folders below another."""
    parts = Path(name).parts
    return bool(parts) and not {"..", "/"} & {*parts} and "/".join(parts) == name
