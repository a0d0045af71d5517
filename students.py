"""Students that learn side by side from one stream of batches: which they are, and whether they can share it."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from models.zoo import NetworkConfig
from recipe import OF_A_RUN, Recipe
from utils.config import OldNames, override, read_configs
from utils.errors import UsageError
from utils.settings import settings, show

# What the batches, the teachers' outputs and the lines of the log depend on, beside data, task and teachers.
_SHARED = ("seed", "amp", "channels_last", "compile", "accumulate", "print_freq", "timeout_minutes")


class Students(dict[str, Recipe]):
    """Recipes by name that are trained together, as a config's `cfg`: one decode, one copy and one pass of each teacher
    for all.

        cfg = Students({"small": recipe, "large": replace(recipe, name="large", student=...)})

    Their lines in the log begin with these names; folders, as always, are by `Recipe.name`.
    """


def students(base: Recipe, networks: Mapping[str, NetworkConfig]) -> Students:
    """``base`` with each of the student ``networks``, in a folder that has its name too, such as NAME_small."""
    made = [replace(base, name=f"{base.name}_{name}", student=network) for name, network in networks.items()]
    return _by_name(made)


def grid(base: Recipe, values: Mapping[str, Sequence[Any]]) -> Students:
    """``base`` with every combination of ``values`` of its settings, which are named as on the command line.

        cfg = grid(recipe, {"terms.wsld.weight": [1, 2.5, 4], "terms.wsld.options.temperature": [2, 4]})

    Folders have the values in their names, such as NAME_weight=2.5_temperature=4.

    Raises:
        UsageError: one is no setting, or of another type, or has no value.
    """
    texts = {key: [show(value) for value in several] for key, several in values.items()}
    return _by_name(named(override(base, words), words) for words in combinations(texts))


def combinations(values: Mapping[str, Sequence[str]]) -> list[list[str]]:
    """Overrides for every combination of ``values``; the last setting changes fastest."""
    return [list(words) for words in itertools.product(*([f"{key}={one}" for one in values[key]] for key in values))]


def named(cfg: Recipe, words: Sequence[str]) -> Recipe:
    """``cfg`` in a folder that is named by the overrides ``words`` too."""
    return replace(cfg, name="_".join([cfg.name, *map(_in_a_name, _shortest(words))]))


def _in_a_name(word: str) -> str:
    """What of ``word`` any file system takes."""
    return re.sub(r"[^\w.=+-]+", "-", word, flags=re.ASCII)


def _shortest(words: Sequence[str]) -> list[str]:
    """``words`` with no more of the end of each key than tells it from the others."""
    split = [(word.partition("=")[0].split("."), word.partition("=")[2]) for word in words]
    lengths = range(1, max((len(names) for names, _ in split), default=0) + 1)
    shortened = ([".".join(names[-length:]) for names, _ in split] for length in lengths)
    keys = next((keys for keys in shortened if len({*keys}) == len(keys)), [])
    return [f"{key}={text}" for key, (_, text) in zip(keys, split)]


def _by_name(recipes: Iterable[Recipe]) -> Students:
    """The recipes by the names of their folders.

    Raises:
        UsageError: there is none, or two have one folder.
    """
    made = Students()
    for one in recipes:
        if one.name in made:
            raise UsageError(
                f"two students have the folder {one.name}: a value stands twice, or name= is given for all"
            )
        made[one.name] = one
    if not made:
        raise UsageError("a grid without students: give each of its settings a value")
    return made


def read_students(
    paths: Sequence[Path],
    grids: Sequence[str],
    overrides: Sequence[str],
    description: str,
    old: OldNames,
    notes: dict[str, None],
) -> Students:
    """The runs of several configs, or of one with each combination of values that the ``grids`` give, all overridden.

    Args:
        paths: of the config files.
        grids: KEY=VALUE,VALUE,... each; a key is a setting, or a parameter of the configs.
        overrides: for all.
        description: for the help.
        old: names that are understood too.
        notes: takes remarks on them.

    Raises:
        UsageError: as `read_configs` and `override`, or a config has several runs one after the other.
        SystemExit: help was asked for, and printed.
    """
    values: dict[str, list[str]] = {}
    for text in grids:
        key, equals, several = text.partition("=")
        if not equals or not several or key in values:
            raise UsageError(f"--grid {text}: expected a setting, once, and its values: KEY=VALUE,VALUE,...")
        values[key] = several.split(";" if ";" in several else ",")
    found = []
    for path in paths:
        for words in combinations(values):
            runs, rest = read_configs(path, Recipe, [*overrides, *words], old)
            if len(runs) > 1 and not isinstance(runs, Students):
                raise UsageError(
                    f"--cfg {path} has several runs, one after the other; only configs of one run share a stream"
                )
            for cfg in runs.values():
                cfg = override(cfg, rest, description, lambda one: one.option_help, old, notes.setdefault)
                found.append(named(cfg, words))
    return _by_name(found)


def check_shared(runs: Mapping[str, Recipe]) -> None:
    """Whether the runs can share a stream.

    Raises:
        UsageError: they differ in what it depends on, one needs another's weights, or logs to where only one can.
    """
    first, *others = runs
    for name in others:
        one, other = _shared(runs[first], runs[name]), _shared(runs[name], runs[first])
        for key in {**one, **other}:
            if one.get(key) != other.get(key):
                raise UsageError(
                    f"{first} and {name} cannot share a stream: {key} is {show(one.get(key))} and "
                    f"{show(other.get(key))}. Set both alike, or train them by two commands"
                )
    for name, cfg in runs.items():
        if waits := [key for key, network in cfg.networks.items() if network.weights.startswith(OF_A_RUN)]:
            raise UsageError(
                f"{name}: {waits[0]}.weights waits for another run, and students that share a stream begin at once: "
                "train that one before, and name its student.safetensors"
            )
        if cfg.train_params.wandb_project is not None:
            raise UsageError(
                f"{name}: train_params.wandb_project: Weights & Biases takes one run a process: leave it out, "
                "TensorBoard and the comparison at the end have them all"
            )


def _shared(cfg: Recipe, other: Recipe) -> dict[str, Any]:
    """Settings that must be as those of the ``other``, which has teachers of its own beside common ones."""
    starts = ["data.", "task", *(f"train_params.{name}" for name in _SHARED)]
    starts += [f"teachers.{name}." for name in cfg.teachers.keys() & other.teachers.keys()]
    return {one.key: one.value for one in settings(cfg) if one.key.startswith(tuple(starts))}
