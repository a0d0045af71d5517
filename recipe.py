"""What a config is made of: the sections of one training run, each defined beside the component that reads it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import nn

import objectives
import tasks
from dataset.loader import DataConfig
from knowledge_distiller import Term
from models.detectors import is_detector
from models.zoo import NetworkConfig
from objectives.contract import reach_everything
from old_names import as_today
from tasks import Task
from teachers import TeacherConfig, teacher_of
from training.loop import TrainConfig
from training.phases import Phase
from training.state import best_weights
from utils.config import differences, restore
from utils.errors import UsageError
from utils.registry import Value
from utils.settings import about, check, left_out, settings, show

OF_A_RUN = "run:"  # what weights begin with that another run of a procedure trains


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
    """what is learned: single_label, multi_label, detection, features, or one of your own"""
    task_options: dict[str, Value] = field(default_factory=dict)
    """the task's own parameters, such as threshold"""

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
    def networks(self) -> dict[str, NetworkConfig]:
        """The student and the teachers, by the keys of their settings."""
        return {"student": self.student, **{f"teachers.{name}": one for name, one in self.teachers.items()}}

    @property
    def epochs(self) -> int:
        """Of all phases."""
        return sum(phase.epochs for phase in self.phases.values())

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
        """Settings with a value of their own that has no effect, each with the one that makes it so; and a score of
        what is not trained."""
        idle = (one for one in settings(self) if one.unused)
        unused = [f"{one.key}={show(one.value)} has no effect with {one.unused}" for one in idle]
        reads = {one for term in self.last.terms.values() for one in objectives.get(term.objective).reads_of("student")}
        trained = any(reach_everything(one) or one == "head_weight" for one in reads)
        if not trained and not self.made_task().reads and self.student.head.name != "reused":
            unused.append(f"task={self.task} scores the student's classifier, which no term trains; see task=features")
        return unused

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
            if phase.optim.schedule == "onecycle" and 0 < phase.optim.cycle_epochs < phase.epochs:
                raise UsageError(
                    f"{place}optim.cycle_epochs={phase.optim.cycle_epochs}: the cycle ends before {phase.epochs} epochs"
                )
        self._check_task(self.made_task())
        for key, network in self.networks.items():
            if network.head.made(f"{key}.head").gives_logits:
                continue
            if key == "student":
                raise UsageError(f"student.head.name={network.head.name}: a student keeps its classifier: leave it out")
            if isinstance(network, TeacherConfig) and network.store:
                raise UsageError(f"{key}.store: it keeps logits, and {key}.head.name=none gives none: leave it out")

    def _check_task(self, task: Task) -> None:
        """Raises UsageError where networks or views of images are not of the task's kind."""
        task.check_data(self.data)
        for key, network in self.networks.items():
            if is_detector(network.name) != task.detects:
                needs = "needs one, such as fasterrcnn_resnet18_fpn" if task.detects else "needs a classifier"
                what = "no detector" if task.detects else "a detector"
                raise UsageError(f"{key}.name={network.name} is {what}, and task={self.task} {needs}")
        for key in ("type_of_data_aug", "val_crop"):
            if getattr(self.data, key) == "short_side" and not task.detects:
                raise UsageError(f"data.{key}=short_side puts zeros beside images, for task=detection alone")

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
        if not Path(what).is_dir():
            return replace(self.student, weights=str(Path(what).resolve()))
        path = Path(what, "best.pt")
        if not path.exists():
            raise UsageError(f"{what} holds no best.pt: train that run for an epoch first")
        return replace(self.student, weights=best_weights(path))

    def made_task(self) -> Task:
        """The task.

        Raises:
            UsageError: there is none of this name, or it has no such options.
        """
        return tasks.get(self.task, self.task_options)

    def check_terms(self) -> None:
        """Raises UsageError where a term reads what is not there, or other targets than those of the task, or mixed
        images have a target too many for it."""
        task = self.made_task()
        targets = {*task.targets(("",)).layout(1), *task.of_outputs}
        for place, phase in self._places():
            for name, term in phase.terms.items():
                key = f"{place}terms.{name}: {term.objective}"
                if name in task.running_scores:
                    raise UsageError(f"{place}terms.{name}: the log has a score of this name; give it another")
                if unknown := [one for one in term.teachers_read if one not in self.teachers]:
                    known = ", ".join(self.teachers) or "none"
                    raise UsageError(f"{place}terms.{name}: no teacher {unknown[0]!r}; there is {known}")
                if "strong" in term.views and not self.data.strong_view:
                    raise UsageError(f"{key} reads strong views; set data.strong_view=True")
                if "any" not in (logits := term.takes_logits_for, task.logits) and logits != task.logits:
                    others = ", ".join(objectives.names(task.logits))
                    raise UsageError(
                        f"{key} takes logits for those of a {logits}, and task={self.task} has those of a "
                        f"{task.logits}: use {others}, or an objective that reads features"
                    )
                if lacking := sorted(term.targets_read - targets):
                    raise UsageError(
                        f"{key} learns from {', '.join(lacking)}, and task={self.task} has {', '.join(sorted(targets))}"
                    )
                if (self.data.mixup or self.data.cutmix) and term.knows_no_mixing:
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
            new = [name for name in self.teachers if changed.get(f"teachers.{name}.store", ("there",))[0] == ""]
            less = f". From here on it learns from what the store's layout keeps of {' and '.join(new)}" if new else ""
            yield f"resumes with other settings: {'; '.join(shown.values())}{less}"
        if unknown:
            yield f"settings of another version are ignored: {', '.join(unknown)}"
        if "phases" not in begun and (self.data.mixup or self.data.cutmix or self.data.strong_view):
            yield "an older version began it: mixup, cutmix and strong views are drawn for each sample from here on"

    def _places(self) -> Iterator[tuple[str, Phase]]:
        """The phases, each with the beginning of its settings' keys."""
        for name, phase in self.phases.items():
            yield f"phases.{name}.".removeprefix(left_out(self)), phase


def _is_below(name: str) -> bool:
    """Whether ``name`` is a plain path of folders below another."""
    parts = Path(name).parts
    return bool(parts) and not {"..", "/"} & {*parts} and "/".join(parts) == name
