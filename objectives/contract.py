"""How an objective is declared and found.

An objective is a function of tensors with options after `*`, returning a scalar::

    @objective(reads="logits")
    def kd(student: Tensor, teacher: Tensor, *, temperature: float = 4.0) -> Tensor: ...

or, with parameters or memory of its own, a module whose `forward` is that function. Its constructor takes the options
after `*` and, before it, whatever it needs to size itself, by the same names: each is given as one example::

    @objective(reads="pooled")
    class Crd(nn.Module):
        def __init__(self, student: Tensor, teacher: Tensor, all_labels: Tensor, *, dimensions: int = 128) -> None: ...
        def forward(self, student: Tensor, teacher: Tensor, labels: Tensor, index: Tensor) -> Tensor: ...

The positional parameters name what is needed:

- `student`, `teacher`: what ``reads`` names, of each network;
- `student_X`, `teacher_X`: X of it, whatever ``reads`` is;
- `labels`, `index` and any other: that key of the batch; one with a default may be missing there;
- in a constructor also `all_labels`, int64 [N]: the labels of the whole training split, by sample index.

What can be read, of the view of the batch that the term names: `logits` [B, K]; a feature of `Outputs`, such as
`pooled` or `stage2`; `stages` and `stages_pre`, the maps of student and teacher in pairs of equal resolution. Of the
network: `head_weight` [K, D] and `head_bias` [K] of the classifier. `VIEW_logits` [B, K] are the logits of that view,
whatever the term names: `student_strong_logits` are the student's of the strong one.
In a constructor also `norms`: for each of `stages_pre` the batch norm before it, or None. Of a classifier `rest`, a
function from the number of a pair of `stages` and a map in the place of its own to what the layers behind it make of
that: the stages behind, `last` and the logits. Later batch norms go by the map's statistics and keep their own.

Detectors have more. `levels` are the maps `fpn*` that the heads look at, `towers` the maps `tower*` at the end of
one-stage heads, of student and teacher in pairs of one stride. Two-stage ones have R regions in place of B samples in
`logits`, `pooled` and `labels`, so that objectives on those serve box heads as they are. `CONTEXT` lists what else can
be read, by `student_X` and `teacher_X`: `losses_on` of a student is a function from other targets than those of the
batch to its `losses`, and `boxes`, `scores` and `classes` of a teacher are what it finds. Of a one-stage teacher
`cross_logits` and `cross_boxes` are what the rest of its heads makes of the student's towers.

What logits mean to one that reads them is declared too: `@objective(reads="logits", logits="sigmoid")` takes each class
for itself, `softmax`, the default, one class an image, `any` either, and `dense` those of every anchor of one-stage
detectors, [B, A, K + 1].

Maps are channels_last as a rule. A gradient in another memory format slows the networks behind it; that of `F.mse_loss`
is, `numerics.mean_squared_distance` keeps the format.

What an option may be, beyond any finite number, stands beside it: `@objective(reads="logits", temperature=POSITIVE)`.
What depends on other things is a ValueError of the constructor, `f"{option}={value}: why"`.

Its name is its own in lower case, or the one that is given: `@objective("reviewkd_pre", reads="stages_pre")`.

An objective carries no weight of its own. A module may have `set_epoch(epoch)`, called with the epochs from 1, and
`set_seed(seed)`, called before each step with a number of its own, for what all ranks must draw alike.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple, TypeVar

from torch import nn

from utils.errors import UsageError
from utils.options import Option, options_of
from utils.settings import Range

Made = TypeVar("Made", bound=Callable[..., Any])

# What is read in pairs: the names of the features.
STAGES = {"stages": "stage*", "stages_pre": "stage*_pre", "levels": "fpn*", "towers": "tower*"}
# What networks give beside logits and features.
CONTEXT = frozenset(
    (
        *("head_weight", "head_bias"),  # of the classifier
        *("losses", "labels", "regions", "box_deltas", "box_targets"),  # of detectors in training
        *("usable", "positives", "dense_boxes"),  # of one-stage ones
        *("losses_on", "boxes", "scores", "classes"),  # on other targets, and what a teacher finds
        "rest",  # of a classifier, on other maps
    )
)
# What a teacher makes of the student's towers, and which maps of these.
_CROSS = {"cross_logits": "cross_tower*", "cross_boxes": "cross_box_tower*"}

POSITIVE, NOT_NEGATIVE, COUNT, SHARE = Range(above=0), Range(0), Range(1), Range(0, 1)


class Objective(NamedTuple):
    """A registered objective."""

    name: str
    made: Callable[..., Any]  # a function, or a module class
    reads: str
    sized_by: tuple[str, ...]  # positional parameters of a module's constructor
    inputs: tuple[str, ...]  # positional parameters of the function
    optional: frozenset[str]  # those of them with a default: keys that a batch may lack
    options: Mapping[str, Option]
    logits: str  # what they mean to it, if it reads them: softmax, sigmoid, any or dense
    summed: bool  # over the samples, whatever its options are

    @property
    def parameters(self) -> tuple[str, ...]:
        """All that it is given, but the options."""
        return (*self.sized_by, *self.inputs)

    @property
    def is_ours(self) -> bool:
        """Whether it is one of this package, and not of a user."""
        return self.made.__module__.partition(".")[0] == __name__.partition(".")[0]

    @property
    def needs_teacher(self) -> bool:
        """Whether it compares the student with a teacher."""
        return any(self.place(name)[0] == "teacher" for name in self.parameters)

    def place(self, name: str) -> tuple[str, str]:
        """Where a parameter comes from: (student or teacher, what is read there), or (batch, key)."""
        network, _, what = name.partition("_")
        if network not in ("student", "teacher"):
            return "batch", name
        return network, what or self.reads

    def reads_of(self, network: str) -> set[str]:
        """What it reads of the `student` or the `teacher`."""
        return {what for where, what in map(self.place, self.parameters) if where == network}

    def views_of(self, network: str) -> set[str]:
        """Views whose logits it reads of the `student` or the `teacher`, beside the view that its term names."""
        return {view for view in map(view_of, self.reads_of(network)) if view}

    def features(self, network: str) -> set[str]:
        """Features of the `student` or the `teacher` that must be kept."""
        read = self.reads_of(network)
        read |= {"stages", "last"} if "rest" in read else set()
        read -= CONTEXT | {"logits"}
        read = {"stages_pre" if what == "norms" else what for what in read if not view_of(what)}
        if network == "student":
            read |= {_CROSS[what] for what in self.reads_of("teacher") & _CROSS.keys()}
        return {STAGES.get(what, what) for what in read}

    def asks(self, network: str) -> set[str]:
        """What the `student` or the `teacher` must be asked for: features, logits, and what only detectors give."""
        read = self.reads_of(network)
        logits = {"logits"} if any(map(are_logits, read)) else set()
        return self.features(network) | logits | (read & CONTEXT - {"head_weight", "head_bias"})

    @property
    def paired(self) -> str:
        """What the features that it reads in pairs are called, without their number: stage, fpn, tower; or nothing."""
        read = {what for _, what in map(self.place, self.parameters)}
        kinds = {STAGES[what].partition("*")[0] for what in read & STAGES.keys()}
        return min(kinds) if kinds else "stage" if read & {"norms", "rest"} else ""


def are_logits(what: str) -> bool:
    """Whether ``what`` names logits, of whichever view."""
    return what == "logits" or bool(view_of(what))


def reach_everything(what: str) -> bool:
    """Whether ``what`` of a student has a gradient for all that is trained: logits, or the losses of a detector."""
    return are_logits(what) or what in ("losses", "losses_on")


def view_of(what: str) -> str:
    """The view whose logits ``what`` names: strong for `strong_logits`; empty for all else that can be read."""
    return what.removesuffix("_logits") if what.endswith("_logits") and what not in _CROSS else ""


_REGISTRY: dict[str, Objective] = {}


def objective(
    name: str = "",
    /,
    *,
    reads: str,
    logits: Literal["softmax", "sigmoid", "any", "dense"] = "softmax",
    summed: bool = False,
    **ranges: Range,
) -> Callable[[Made], Made]:
    """Register the decorated function or module class, and return it unchanged.

    Args:
        name: what terms call it; its own name in lower case, where none is given.
        reads: what its `student` and `teacher` are: `logits`, `pooled`, `stages`, `stage4`, ...
        logits: what logits mean to it: `softmax`, `sigmoid`, `any` or `dense`.
        summed: whether it is a sum over the samples, as one with an option `reduction` is where that is `sum`: on a
            part of a batch it is then counted as often as there are parts, so that their mean is the sum.
        ranges: of its options.

    Raises:
        ValueError: the name is taken by another.
    """

    def register(made: Made) -> Made:
        own = name or made.__name__.lower()
        other = _REGISTRY[own].made if own in _REGISTRY else made
        if (other.__module__, other.__qualname__) != (made.__module__, made.__qualname__):  # the same may come again
            raise ValueError(f"objective {own} is registered already, by {other.__module__}")
        sized_by: Mapping[str, inspect.Parameter] = {}
        called: Callable[..., Any] = made
        if isinstance(made, type) and issubclass(made, nn.Module):
            sized_by, called = _positional(made), made.forward
        inputs = _positional(called)
        optional = frozenset(key for key, parameter in inputs.items() if parameter.default is not parameter.empty)
        options = options_of(made, **ranges)
        _REGISTRY[own] = Objective(own, made, reads, (*sized_by,), (*inputs,), optional, options, logits, summed)
        return made

    return register


def _positional(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """The positional parameters but self, by name."""
    parameters = inspect.signature(function).parameters.values()
    return {p.name: p for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD and p.name != "self"}


def get(name: str) -> Objective:
    """The objective called ``name``.

    Raises:
        UsageError: there is none; near names are given.
    """
    if name not in _REGISTRY:
        near = difflib.get_close_matches(name, _REGISTRY, n=3) or sorted(_REGISTRY)
        raise UsageError(
            f"no objective {name!r}; there is {', '.join(near)}. Import the file of your own in the config"
        )
    return _REGISTRY[name]


def names(logits: str) -> list[str]:
    """Names of the objectives here to which logits mean that, in alphabetical order."""
    own = (one for one in _REGISTRY.values() if one.is_ours and one.logits == logits)
    return sorted(one.name for one in own if any(map(are_logits, one.reads_of("student"))))
