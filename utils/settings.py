"""Settings: values in frozen dataclasses, each with its range, its text and its usual names beside it."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import math
import textwrap
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from fractions import Fraction
from functools import cache
from types import NoneType, UnionType
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

from utils.errors import UsageError
from utils.text import shortened

_TRUE, _FALSE, _NONE = ("true", "yes", "on", "1"), ("false", "no", "off", "0"), ("none", "null")
hints: Callable[[Any], dict[str, Any]] = cache(get_type_hints)  # the types of a dataclass's fields
_COUNTS = {1: "one", 2: "two", 3: "three"}


class Range(NamedTuple):
    """What a number may be: ``least`` and ``most`` themselves, but neither ``above`` nor ``below``."""

    least: float = -math.inf
    most: float = math.inf
    above: float = -math.inf
    below: float = math.inf

    @property
    def limits(self) -> dict[str, float]:
        """Those that it has, by name."""
        return {name: limit for name, limit in self._asdict().items() if math.isfinite(limit)}

    def has(self, number: float) -> bool:
        """Whether it may be ``number``."""
        return self.least <= number <= self.most and self.above < number < self.below

    def __str__(self) -> str:
        words = {"least": "at least", "above": "above", "most": "at most", "below": "below"}
        limits = self.limits
        return " and ".join(f"{word} {limits[name]}" for name, word in words.items() if name in limits)


def setting(default: Any, **about_it: Any) -> Any:
    """A field of a dataclass of settings, with a ``default``, and what `about` takes."""
    return dataclasses.field(default=default, metadata=about(**about_it))


def about(
    *,
    least: float = -math.inf,
    above: float = -math.inf,
    most: float = math.inf,
    below: float = math.inf,
    rising: bool = False,
    affects_result: bool = True,
    used_with: Mapping[str, tuple[str, ...]] | None = None,
    also: tuple[str, ...] = (),
    in_short: bool = False,
) -> dict[str, Any]:
    """What is known of a setting, as the metadata of its field.

    Args:
        least: lowest value of every number in it.
        above: what every number in it is greater than.
        most: highest value of every number in it.
        below: what every number in it is less than.
        rising: whether its numbers, or the first ones of its tuples, must not fall.
        affects_result: whether another value changes what a run learns, by more than rounding; a run may resume with
            other values of settings that do not.
        used_with: the settings beside it, and their values, without which it has no effect.
        also: what other trainers call it.
        in_short: of a dictionary: whether the settings of its last entry go without its name and the entry's.
    """
    return {
        "range": Range(least, most, above, below),
        "rising": rising,
        "affects_result": affects_result,
        "used_with": used_with or {},
        "also": also,
        "in_short": in_short,
    }


@dataclasses.dataclass(frozen=True)
class Setting:
    """One value of a configuration.

    Attributes:
        key: where it stands, dotted, in short.
        value: what it is.
        kind: its type.
        field: that of the dataclass that holds it, or holds the dictionary that it is in.
        owner: that dataclass.
    """

    key: str
    value: Any
    kind: Any
    field: dataclasses.Field
    owner: Any

    @property
    def affects_result(self) -> bool:
        """Whether another value changes what is learned."""
        return self.field.metadata.get("affects_result", True)

    @property
    def names(self) -> tuple[str, ...]:
        """Its own name, and what other trainers call it."""
        return (self.key.rpartition(".")[2], *self.field.metadata.get("also", ()))

    @property
    def text(self) -> str:
        """The string below the field."""
        return texts(type(self.owner)).get(self.field.name, "")

    @property
    def unused(self) -> str:
        """The setting on account of which it has no effect, as key=value; empty where it has one, or is at default."""
        if self.value != self.field.default:
            for name, values in self.field.metadata.get("used_with", {}).items():
                if getattr(self.owner, name) not in values:
                    return f"{self.key.rpartition('.')[0]}.{name}={getattr(self.owner, name)}"
        return ""

    def check(self) -> None:
        """Raises UsageError where the value is of another type, or out of its range."""
        shown = f"{self.key}={shortened(show(self.value), 200)}"
        if not _fits(self.value, self.kind):
            raise UsageError(f"{shown}: expected {expected(self.kind, self.field)}")
        allowed = range_of(self.field)
        if not all(map(allowed.has, _numbers(self.value))):
            raise UsageError(f"{shown}: {allowed}{', or none' if NoneType in get_args(self.kind) else ''}")
        if self.field.metadata.get("rising") and self.value is not None:
            firsts = [item[0] if isinstance(item, (tuple, list)) else item for item in self.value]
            if firsts != sorted(firsts):
                raise UsageError(f"{shown}: its numbers must rise, not {', '.join(map(str, firsts))}")


def settings(cfg: Any, prefix: str = "") -> Iterator[Setting]:
    """Every value of a configuration, also of those in dictionaries, in order."""
    kinds = hints(type(cfg))
    for field in dataclasses.fields(cfg):
        key, value, kind = f"{prefix}{field.name}", getattr(cfg, field.name), kinds[field.name]
        if get_origin(kind) is dict and _fits(value, kind):
            for name, item in value.items():
                inside = prefix if left_out(cfg) == f"{field.name}.{name}." else f"{key}.{name}."
                yield from _settings(f"{key}.{name}", item, get_args(kind)[1], field, cfg, inside)
        else:
            yield from _settings(key, value, kind, field, cfg, f"{key}.")


def left_out(cfg: Any) -> str:
    """What need not stand before the settings of the last entry of a dictionary, such as `phases.last.`, or nothing."""
    for field in dataclasses.fields(cfg):
        if field.metadata.get("in_short") and isinstance(entries := getattr(cfg, field.name), dict) and entries:
            return f"{field.name}.{[*entries][-1]}."
    return ""


def _settings(key: str, value: Any, kind: Any, field: dataclasses.Field, owner: Any, inside: str) -> Iterator[Setting]:
    if dataclasses.is_dataclass(kind) and isinstance(value, kind):  # type: ignore[arg-type]
        yield from settings(value, inside)
    else:
        yield Setting(key, value, kind, field, owner)


def check(cfg: Any, prefix: str = "") -> None:
    """Raises UsageError where a value of a configuration is of another type than its field, or out of its range."""
    for one in settings(cfg, prefix):
        one.check()


def texts(kind: Any) -> dict[str, str]:
    """The strings below a dataclass's fields, also those that it inherits."""
    found = {}
    for one in reversed(kind.__mro__[:-1]):
        (made,) = ast.parse(textwrap.dedent(inspect.getsource(one))).body
        assert isinstance(made, ast.ClassDef)
        for field, text in zip(made.body, made.body[1:]):
            if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
                found[ast.unparse(field.target)] = " ".join(str(text.value.value).split())
    return found


def parse(text: str, kind: Any) -> Any:
    """The value of type ``kind`` that ``text`` spells.

    Raises:
        ValueError: it spells none.
    """
    word, origin = text.strip().lower(), get_origin(kind)
    if origin in (Union, UnionType):
        return _first_that_fits(text, get_args(kind))
    if origin is tuple:
        return _parse_list(text, get_args(kind))
    if origin is Literal:
        chosen = {choice.lower(): choice for choice in get_args(kind)}
        if word not in chosen:
            raise ValueError
        return chosen[word]
    if kind is NoneType:
        if word not in _NONE:
            raise ValueError
        return None
    if kind is bool:
        if word not in _TRUE + _FALSE:
            raise ValueError
        return word in _TRUE
    if kind is int:
        number = int(word) if word.lstrip("+-").replace("_", "").isdigit() else float(word)  # 1e2 is a whole number
        if not math.isfinite(number) or number != int(number):
            raise ValueError
        return int(number)
    if kind is float:
        number = float(Fraction(word)) if "/" in word and "e" not in word else float(word)
        if not math.isfinite(number):
            raise ValueError
        return number
    assert kind is str, kind
    return text


def _first_that_fits(text: str, kinds: tuple[Any, ...]) -> Any:
    """Of several types the first that ``text`` is a value of; text itself comes last, and a list has two items."""
    for kind in kinds:
        if kind is str or (str in kinds and get_origin(kind) is tuple and len(_items(text)) < 2):
            continue
        with suppress(ValueError, ArithmeticError):
            return parse(text, kind)
    if str not in kinds:
        raise ValueError
    return text


def _parse_list(text: str, kinds: tuple[Any, ...]) -> tuple:
    items = _items(text)
    if get_origin(kinds[0]) is tuple:  # lists of a list, written one after the other
        inner = get_args(kinds[0])
        starts = range(0, len(items), len(inner))
        return tuple(_parse_list(" ".join(items[start : start + len(inner)]), inner) for start in starts)
    each = kinds[:1] * len(items) if kinds[-1] is Ellipsis else kinds
    if len(items) != len(each):
        raise ValueError
    return tuple(map(parse, items, each))


def _items(text: str) -> list[str]:
    """The items of a list, as Python, JSON or a shell would write it."""
    return text.translate(str.maketrans(",;()[]{}'\"", " " * 10)).split()


def expected(kind: Any, field: dataclasses.Field) -> str:
    """What a value of type ``kind`` is, as messages name it, with its range."""
    return ", ".join(filter(None, (in_words(kind), str(range_of(field)))))


def in_words(kind: Any, *, many: bool = False) -> str:
    """What a value of type ``kind`` is; ``many`` of them in a list."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return " or ".join(dict.fromkeys(in_words(one, many=many) for one in arguments))
    if origin is tuple:
        if arguments[-1] is Ellipsis:
            return f"a list of {in_words(arguments[0], many=True)}"
        count = _COUNTS.get(len(arguments), str(len(arguments)))
        return f"{'lists of ' if many else ''}{count} {in_words(arguments[0], many=True)}"
    if origin is Literal:
        return f"one of {', '.join(filter(None, arguments))}{'' if all(arguments) else ', or nothing'}"
    if origin is dict:
        return "a dictionary by name"
    named = {int: "a whole number", float: "a number", bool: "true or false", str: "a name or text", NoneType: "none"}
    if many:
        named |= {int: "whole numbers", float: "numbers", str: "names"}
    return named.get(kind) or f"a {kind.__name__}"


def range_of(field: dataclasses.Field) -> Range:
    """What every number in the field may be."""
    return field.metadata.get("range", Range())


def _numbers(value: Any) -> Iterator[float]:
    if isinstance(value, (tuple, list)):
        for item in value:
            yield from _numbers(item)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        yield value


def _fits(value: Any, kind: Any) -> bool:
    """Whether ``value`` is of type ``kind``; a list serves for a tuple and a whole number for a number."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return any(_fits(value, one) for one in arguments)
    if origin is tuple:
        if not isinstance(value, (tuple, list)):
            return False
        if arguments[-1] is Ellipsis:
            return all(_fits(item, arguments[0]) for item in value)
        return len(value) == len(arguments) and all(map(_fits, value, arguments))
    if origin is Literal:
        return value in arguments
    if origin is dict:
        return isinstance(value, dict) and all(isinstance(name, str) for name in value)
    if kind is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, kind)


def show(value: Any) -> str:
    """A value as the command line takes it."""
    if isinstance(value, (tuple, list)):
        return ",".join(map(show, value))
    return str(value) if value is not None else "none"
