"""Options of functions and classes: found after `*`, with their defaults, and checked against them and their ranges."""

import math

import pytest

from utils.errors import UsageError
from utils.options import check_options, options_of
from utils.settings import Range


def blur(image: object, *, radius: int = 3, strength: float = 0.5, mode: str = "edge", twice: bool = False) -> None:
    """Any function."""


class Sharpen:
    """Any class; its option has no default."""

    def __init__(self, image: object, *, strength: float) -> None: ...


BLUR = options_of(blur, radius=Range(1), strength=Range(0, 1))


def check(given: dict, options: dict = BLUR) -> dict:
    return check_options(options, given, key="filters.x", owner="blur")


def test_options_stand_after_the_star():
    assert {name: option.default for name, option in BLUR.items()} == {
        "radius": 3,
        "strength": 0.5,
        "mode": "edge",
        "twice": False,
    }
    assert [*options_of(Sharpen)] == ["strength"]
    assert options_of(Sharpen)["strength"].is_required
    assert not BLUR["radius"].is_required
    with pytest.raises(AssertionError, match="blur has no option"):
        options_of(blur, size=Range(0))


def test_what_an_option_may_be_is_returned_and_only_what_is_given():
    given = {"radius": 2.0, "strength": 1, "mode": "wrap", "twice": True}
    assert check(given) == given
    assert type(check(given)["radius"]) is int
    assert check({}) == {}
    assert check({"strength": -7.0}, options_of(Sharpen)) == {"strength": -7.0}  # any finite number


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"radius": 0}, "filters.x.radius=0: at least 1, like its default, 3"),
        ({"radius": 2.5}, "filters.x.radius=2.5: a whole number, like its default, 3"),
        ({"radius": True}, "filters.x.radius=True: no number like its default, 3"),
        ({"strength": 1.1}, "filters.x.strength=1.1: at least 0 and at most 1, like its default, 0.5"),
        ({"strength": math.nan}, "filters.x.strength=nan: not a finite number"),
        ({"strength": "1"}, "filters.x.strength=1: no number like its default, 0.5"),
        ({"mode": 1}, "filters.x.mode=1: no value like its default, 'edge'"),
        ({"twice": 1}, "filters.x.twice=1: no value like its default, False"),
        ({"strenght": 1}, "filters.x: blur has no option strenght; near: strength"),
        ({"q": 1}, "filters.x: blur has no option q; it has radius, strength, mode, twice"),
    ],
)
def test_what_it_may_not_be_is_refused_by_name(given, message):
    with pytest.raises(UsageError) as error:
        check(given)
    assert str(error.value) == message


def test_an_option_without_a_default_must_be_given():
    with pytest.raises(UsageError, match=r"^filters\.x: blur needs strength$"):
        check({}, options_of(Sharpen))
