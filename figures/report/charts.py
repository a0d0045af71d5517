"""Charts as SVG that a page holds: drawn from numbers, coloured by its style, with values under the pointer.

Every text goes through `Markup.format`, which escapes it. X places on the x axis.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import numpy as np
from markupsafe import Markup
from matplotlib.ticker import LogLocator, MaxNLocator

PLACES = 80  # at most, on the x axis of a chart
COLORS = 10  # of lines, before they come again
_WIDE, _HIGH = 360, 216
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 10, 8, 30
_LETTER, _LINE = 5.6, 13  # width of a letter and height of a line in what the pointer shows
_NAME = 26  # letters of a name there
_SIDE_NAME = 14  # letters of a name beside a matrix
_SHOWN = 9  # lines there
_STEEP = 30  # from this ratio of greatest to least on, losses are drawn on a log scale
_STEPS = [1, 2, 2.5, 5, 10]


class Line(NamedTuple):
    """Values over the x axis of a chart.

    Attributes:
        name: in the legend.
        values: [X], NaN where there is none.
        color: its number.
        low, high: [X], edges of the band around it.
        dashed: drawn broken.
    """

    name: str
    values: np.ndarray
    color: int
    low: np.ndarray | None = None
    high: np.ndarray | None = None
    dashed: bool = False


class Chart(NamedTuple):
    """A chart, with what stands above it.

    Attributes:
        title: what it shows.
        unit: of its values.
        legend: names and colour numbers of its lines; empty where the page has one for all charts.
        svg: the drawing.
        kind: lines, bars or stack.
    """

    title: str
    unit: str
    legend: list[Line]
    svg: Markup
    kind: str


def aligned(curves: Sequence[Sequence[tuple[float, float]]]) -> tuple[np.ndarray, list[np.ndarray]]:
    """Curves over common places: x [X], and the values of each there, NaN before its first and behind its last point.

    Args:
        curves: points (x, y) of each; several that share a stretch of the axis, where there are too many for a chart,
            are averaged.
    """
    finite = [np.array([(x, y) for x, y in one if math.isfinite(x) and math.isfinite(y)]) for one in curves]
    some = [one[np.argsort(one[:, 0], kind="stable")] for one in finite if len(one)]
    if not some:
        return np.zeros(0), [np.zeros(0) for _ in curves]
    x = np.unique(np.concatenate([one[:, 0] for one in some]))
    if len(x) > PLACES:
        edges = np.linspace(x[0], x[-1], PLACES + 1)
        x = (edges[1:] + edges[:-1]) / 2
        some = [_averaged(one, edges) for one in some]
    reach = (x[-1] - x[0]) / PLACES if len(x) > 1 else 1.0  # what an average is moved by
    rows, left = [], iter(some)
    for one in finite:
        if not len(one):
            rows.append(np.full(len(x), math.nan))
            continue
        points = next(left)
        inside = (x >= points[0, 0] - reach / 2) & (x <= points[-1, 0] + reach / 2)
        rows.append(np.where(inside, np.interp(x, points[:, 0], points[:, 1]), math.nan))
    return x, rows


def _averaged(points: np.ndarray, edges: np.ndarray) -> np.ndarray:
    places = np.digitize(points[:, 0], edges[1:-1])
    return np.array([points[places == place].mean(0) for place in np.unique(places)])


def banded(name: str, rows: Sequence[np.ndarray], color: int, *, dashed: bool = False) -> Line:
    """The mean of the curves of a group, where all have a value, between the lowest and the highest."""
    stacked = np.array(rows)
    several = len(rows) > 1
    low, high = (stacked.min(0), stacked.max(0)) if several else (None, None)
    return Line(name, stacked.mean(0), color, low, high, dashed)


def chart(
    title: str,
    x: np.ndarray,
    lines: Sequence[Line],
    *,
    x_name: str,
    unit: str = "",
    kind: Literal["lines", "bars", "stack"] = "lines",
    from_zero: bool = False,
    may_be_steep: bool = False,
    legend: bool = False,
    notes: Sequence[str] = (),
) -> Chart:
    """Lines, bars side by side, or areas upon each other.

    Args:
        title: what it shows.
        x: [X], rising.
        lines: with [X] values each.
        x_name: what x is.
        unit: of the values; `%` for shares of 0 to 100.
        kind: how they are drawn.
        from_zero: whether the y axis begins at 0.
        may_be_steep: whether a log scale serves where the values differ much.
        legend: whether the chart needs one of its own.
        notes: [X], more that the pointer shows.
    """
    drawn = _stacked(lines) if kind == "stack" else [*lines]
    y_of, y_ticks, unit = _y_axis(drawn, kind, unit, from_zero=from_zero, may_be_steep=may_be_steep)
    x_of, x_ticks = _x_axis(x, kind)
    parts = [_grid(y_ticks, y_of, x_ticks, x_of, x_name)]
    if kind == "lines":
        parts += [_band(x, one, x_of, y_of) for one in drawn if one.low is not None]
        parts += [_line(x, one, x_of, y_of) for one in drawn]
    elif kind == "bars":
        parts += _bars(x, drawn, x_of, y_of)
    else:
        parts += _areas(x, drawn, x_of, y_of)
    parts += _pointed_at(x, lines, drawn, x_of, y_of, x_name, kind, notes)
    label = f"{title}: {', '.join(one.name for one in lines)}"
    svg = Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        _WIDE, _HIGH, label, Markup("").join(parts)
    )
    return Chart(title, unit, [*lines] if legend else [], svg, kind)


def number(value: float) -> str:
    """A value as a chart shows it."""
    return f"{value:.4g}" if abs(value) < 1e4 or abs(value) >= 1e6 else f"{value:,.0f}"


def _stacked(lines: Sequence[Line]) -> list[Line]:
    """Each between the sum of those before it and its own."""
    sums = np.cumsum([np.nan_to_num(one.values) for one in lines], axis=0)
    before = np.concatenate([np.zeros((1, sums.shape[1])), sums[:-1]])
    return [one._replace(values=high, low=low, high=high) for one, low, high in zip(lines, before, sums)]


def _y_axis(
    lines: Sequence[Line], kind: str, unit: str, *, from_zero: bool, may_be_steep: bool
) -> tuple[Callable[[float], float], list[float], str]:
    """Where a value stands, the values with a line, and the unit."""
    every = np.concatenate([one for line in lines for one in (line.values, line.low, line.high) if one is not None])
    every = every[np.isfinite(every)]
    low, high = (float(every.min()), float(every.max())) if len(every) else (0.0, 1.0)
    down = _HIGH - _TOP - _BOTTOM
    if may_be_steep and kind == "lines" and low > 0 and high / low > _STEEP:
        bottom, top = math.log10(low), math.log10(high)
        marks = LogLocator(subs=(1.0, 3.0) if top - bottom < 3 else (1.0,)).tick_values(low, high)
        inside = [float(one) for one in marks if low <= one <= high]
        return (
            lambda value: _TOP + down * (top - math.log10(value)) / (top - bottom),
            inside,
            f"{unit} log scale".strip(),
        )
    if from_zero or kind != "lines":
        low = min(low, 0.0)
    if kind == "stack":
        high = 100.0
    if math.isclose(low, high):
        low, high = (0.0, high) if unit == "%" and high >= 100 else (low, low + (abs(low) or 1))
    marks = MaxNLocator(nbins=5, steps=_STEPS).tick_values(low, high)
    bottom, top = float(marks[0]), float(marks[-1])
    if unit == "%":
        top = min(top, max(100.0, high))
        bottom = max(bottom, min(0.0, low))
    inside = [float(one) for one in marks if bottom - 1e-9 <= one <= top + 1e-9]
    return lambda value: _TOP + down * (top - value) / (top - bottom), inside, unit


def _x_axis(x: np.ndarray, kind: str) -> tuple[Callable[[float], float], list[float]]:
    low, high = (float(x[0]), float(x[-1])) if len(x) else (0.0, 1.0)
    if kind == "bars":
        half = (high - low) / (len(x) - 1) / 2 if len(x) > 1 else 0.5
        low, high = low - half, high + half
    elif high == low:
        low, high = low - 0.5, high + 0.5
    whole = bool((x == np.round(x)).all())
    marks = MaxNLocator(nbins=6, steps=_STEPS, integer=whole).tick_values(low, high)
    inside = [float(one) for one in marks if low <= one <= high]
    across = _WIDE - _LEFT - _RIGHT
    return lambda value: _LEFT + across * (value - low) / (high - low), inside


def _grid(
    y_ticks: Sequence[float],
    y_of: Callable[[float], float],
    x_ticks: Sequence[float],
    x_of: Callable[[float], float],
    x_name: str,
) -> Markup:
    right, bottom = _WIDE - _RIGHT, _HIGH - _BOTTOM
    rows = [
        Markup('<line x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/><text class="y" x="{}" y="{:.1f}">{}</text>').format(
            _LEFT, right, y_of(one), y_of(one), _LEFT - 6, y_of(one) + 3.5, number(one)
        )
        for one in y_ticks
    ]
    columns = [
        Markup('<text class="x" x="{:.1f}" y="{}">{}</text>').format(x_of(one), bottom + 14, number(one))
        for one in x_ticks
    ]
    name = Markup('<text class="name" x="{}" y="{}">{}</text>').format(right, _HIGH - 3, x_name)
    return Markup('<g class="grid">{}{}{}</g>').format(Markup("").join(rows), Markup("").join(columns), name)


def _path(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{'L' if number else 'M'}{x:.1f} {y:.1f}" for number, (x, y) in enumerate(points))


def _line(x: np.ndarray, line: Line, x_of: Callable[[float], float], y_of: Callable[[float], float]) -> Markup:
    known = np.isfinite(line.values)
    points = [(x_of(one), y_of(value)) for one, value in zip(x[known], line.values[known])]
    style = f"c{line.color} line{' dashed' if line.dashed else ''}"
    if len(points) == 1:
        return _dot(line.color, *points[0])
    return Markup('<path class="{}" d="{}"/>').format(style, _path(points))


def _band(x: np.ndarray, line: Line, x_of: Callable[[float], float], y_of: Callable[[float], float]) -> Markup:
    assert line.low is not None
    assert line.high is not None
    known = np.isfinite(line.low)
    above = [(x_of(one), y_of(value)) for one, value in zip(x[known], line.high[known])]
    below = [(x_of(one), y_of(value)) for one, value in zip(x[known], line.low[known])]
    if not above:
        return Markup("")
    return Markup('<path class="c{} band" d="{}Z"/>').format(line.color, _path([*above, *below[::-1]]))


def _areas(
    x: np.ndarray, lines: Sequence[Line], x_of: Callable[[float], float], y_of: Callable[[float], float]
) -> list[Markup]:
    if len(x) == 1:  # a single line of the log
        x = np.array([x[0] - 0.5, x[0] + 0.5])
        lines = [one._replace(low=np.repeat(one.low, 2), high=np.repeat(one.high, 2)) for one in lines]  # type: ignore[arg-type]
    return [_band(x, one, x_of, y_of) for one in lines]


def _bars(
    x: np.ndarray, lines: Sequence[Line], x_of: Callable[[float], float], y_of: Callable[[float], float]
) -> list[Markup]:
    wide = (x_of(float(x[1])) - x_of(float(x[0])) if len(x) > 1 else 60.0) * 0.84
    each = wide / len(lines)
    made = []
    for place, line in enumerate(lines):
        for one, value in zip(x, line.values):
            if np.isfinite(value) and value:
                top = min(y_of(value), y_of(0.0))
                box = x_of(one) - wide / 2 + place * each, top, each * 0.94, abs(y_of(0.0) - y_of(value))
                made.append(
                    Markup('<rect class="c{} bar" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"/>').format(
                        line.color, *box
                    )
                )
    return made


def _pointed_at(
    x: np.ndarray,
    lines: Sequence[Line],
    drawn: Sequence[Line],
    x_of: Callable[[float], float],
    y_of: Callable[[float], float],
    x_name: str,
    kind: str,
    notes: Sequence[str],
) -> list[Markup]:
    """A column for each place, whose values the style shows while the pointer is over it."""
    middles = [x_of(float(one)) for one in x]
    edges = [_LEFT, *((a + b) / 2 for a, b in itertools.pairwise(middles)), _WIDE - _RIGHT]
    made = []
    for place, (left, right) in enumerate(itertools.pairwise(edges)):
        here = [(line, at) for line, at in zip(lines, drawn) if np.isfinite(line.values[place])]
        if not here:
            continue
        heads = [f"{x_name} {number(float(x[place]))}", *notes[place : place + 1]]
        rows = [(one.color, f"{_cut(one.name, _NAME)}  {number(float(one.values[place]))}") for one, _ in here[:_SHOWN]]
        marks = [_dot(at.color, middles[place], y_of(float(at.values[place]))) for _, at in here if kind == "lines"]
        made.append(
            Markup(
                '<g class="at"><rect class="hit" x="{:.1f}" y="0" width="{:.1f}" height="{}"/><g class="tip">'
                '<line x1="{:.1f}" x2="{:.1f}" y1="{}" y2="{}"/>{}{}</g></g>'
            ).format(
                *(left, right - left, _HIGH),
                *(middles[place], middles[place], _TOP, _HIGH - _BOTTOM),
                *(Markup("").join(marks), _said(middles[place], heads, rows[::-1] if kind == "stack" else rows)),
            )
        )
    return made


def _said(x: float, heads: Sequence[str], rows: Sequence[tuple[int, str]]) -> Markup:
    """Lines of text on a card beside ``x``, those of ``rows`` behind their colours."""
    wide = 12 + _LETTER * max(map(len, (*heads, *(f"   {text}" for _, text in rows))))
    left = min(max(x + 8 if x < _WIDE / 2 else x - 8 - wide, 2), max(2, _WIDE - wide - 2))
    card = Markup('<rect x="{:.1f}" y="4" width="{:.1f}" height="{}"/>').format(
        left, wide, 8 + _LINE * (len(heads) + len(rows))
    )
    first = [
        Markup('<text class="head" x="{:.1f}" y="{}">{}</text>').format(left + 6, 16 + _LINE * row, text)
        for row, text in enumerate(heads)
    ]
    others = [
        Markup(
            '<rect class="c{} bar" x="{:.1f}" y="{}" width="8" height="8"/><text x="{:.1f}" y="{}">{}</text>'
        ).format(color, left + 6, 9 + _LINE * row, left + 18, 16 + _LINE * row, text)
        for row, (color, text) in enumerate(rows, len(heads))
    ]
    return card + Markup("").join([*first, *others])


def _dot(color: int, x: float, y: float) -> Markup:
    return Markup('<circle class="c{} dot" cx="{:.1f}" cy="{:.1f}" r="3"/>').format(color, x, y)


def _cut(name: str, letters: int) -> str:
    return name if len(name) <= letters else f"{name[: letters - 1]}…"


def heat(counts: np.ndarray, rows: Sequence[str], columns: Sequence[str]) -> Markup:
    """A matrix of counts as squares, each as strong as its share of its row; the diagonal has another colour.

    Args:
        counts: [R, C].
        rows: R names.
        columns: C names, the first R those of the rows.
    """
    longest = min(_SIDE_NAME, max(map(len, (*rows, *columns))))
    turned = -60 if longest > 2 else 0  # the names of the columns, degrees
    margin, side = 10 + 6.2 * longest, 28 if len(columns) <= 16 else 18
    wide, high = margin + side * len(columns) + 4, margin + side * len(rows) + 4
    sums = np.maximum(counts.sum(1), 1)
    cells, written = [], len(columns) <= 16
    for row, column in np.argwhere(counts):
        count = int(counts[row, column])
        share = count / sums[row]
        x, y = margin + side * column, margin + side * row
        cells.append(
            Markup(
                '<g><title>{}, taken for {}: {} of {} ({:.1%})</title><rect class="{}" x="{:.1f}" y="{:.1f}" '
                'width="{}" height="{}" fill-opacity="{:.2f}"/>{}</g>'
            ).format(
                *(rows[row], columns[column], count, int(sums[row]), share),
                *("right" if row == column else "wrong", x, y, side - 2, side - 2, 0.12 + 0.88 * share**0.5),
                Markup('<text class="{}" x="{:.1f}" y="{:.1f}">{}</text>').format(
                    "strong" if share > 0.35 else "count", x + side / 2 - 1, y + side / 2 + 2.5, count
                )
                if written
                else "",
            )
        )
    names = [
        Markup('<text class="row" x="{:.1f}" y="{:.1f}">{}</text>').format(
            margin - 6, margin + side * (place + 0.5) + 3, _cut(name, _SIDE_NAME)
        )
        for place, name in enumerate(rows)
    ] + [
        Markup('<text class="column" transform="translate({:.1f} {:.1f}) rotate({})">{}</text>').format(
            margin + side * (place + 0.5) + (2 if turned else -4), margin - 6, turned, _cut(name, _SIDE_NAME)
        )
        for place, name in enumerate(columns)
    ]
    return Markup(
        '<svg class="heat" width="{:.0f}" viewBox="0 0 {:.0f} {:.0f}" role="img" aria-label="confusion">{}{}</svg>'
    ).format(1.4 * (wide + 30), wide + 30, high, Markup("").join(cells), Markup("").join(names))
