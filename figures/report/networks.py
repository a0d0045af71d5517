"""The parts of the page that are about what networks give: classes, confusion, missed samples, agreement, weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any

import numpy as np

from dataset.class_names import names_for_people
from figures.outputs import Detected, Truth
from figures.regularization import Effect
from figures.report.charts import COLORS, Chart, Line, chart, heat
from figures.report.data import Group
from figures.report.measures import (
    Match,
    agreement,
    confusion,
    logits_of,
    matched,
    missed,
    recalls,
    wrong,
)
from figures.report.seen import Bench
from utils.errors import DataError
from utils.text import printable

_LOWEST, _HIGHEST = 40, 20  # classes in a table
_SQUARES = 32  # classes in a matrix
_PAIRS = 16  # confusions in a list
_MISSED, _SIDE = 24, 144  # pictures of a bench, and their pixels
_SCENES, _SCENE_SIDE, _PANELS = 8, 320, 3  # with boxes, and networks beside the truth
_NAMES = 4  # classes in a line


def sections(groups: Sequence[Group], benches: Sequence[Bench], effects: Mapping[int, Effect]) -> dict[str, Any]:
    """What the template is given of them, by name."""
    of_bench = [(bench, _on(bench, groups)) for bench in benches]
    single = [(bench, some) for bench, some in of_bench if bench.task == "single_label"]
    detecting = [(bench, some) for bench, some in of_bench if bench.task == "detection"]
    with_logits = [(bench, some) for bench, some in of_bench if bench.task != "detection"]
    agreeing = [(bench, _agreeing(bench, some)) for bench, some in with_logits]
    return {
        "benches": [_about(bench, some) for bench, some in of_bench],
        "classes": [*(_recalls(bench, some) for bench, some in single), *_tables(groups)],
        "confusions": [one for bench, some in single for one in _confusions(bench, some)],
        "missed": [one for bench, some in with_logits if (one := _missed(bench, some))["cards"]],
        "scenes": [
            {**one, "number": number}
            for number, (bench, some) in enumerate(detecting)
            if (one := _scenes(bench, some))["cards"]
        ],
        "agreement": _agreement(agreeing),
        "agreeing": [row for _, rows in agreeing for row in rows],
        "found": [row for bench, some in detecting for row in _found(bench, some)],
        "weights": _weights(groups, effects),
    }


def _on(bench: Bench, groups: Sequence[Group]) -> list[Group]:
    """The groups whose runs the bench has, with these runs."""
    here = [group._replace(runs=[run for run in group.runs if run.path in bench.students]) for group in groups]
    return [group for group in here if group.runs]


def _about(bench: Bench, groups: Sequence[Group]) -> str:
    some = "all" if len(bench.index) == bench.of else f"{len(bench.index):,} of"
    return f"{some} {bench.of:,} validation images of {', '.join(group.name for group in groups)}"


def _recalls(bench: Bench, groups: Sequence[Group]) -> dict[str, Any]:
    """A row a class: images, and the share that is classified right by each group and teacher."""
    images = np.bincount(bench.labels, minlength=len(bench.classes))
    columns = {
        group.name: (group.number % COLORS, np.mean([recalls(bench, one) for one in logits_of(bench, group)], axis=0))
        for group in groups
    }
    for called, logits in _teachers(bench, groups).items():
        columns[called] = (-1, recalls(bench, logits))
    rows = [
        (name, int(images[place]), [(color, float(values[place])) for color, values in columns.values()])
        for place, name in enumerate(bench.classes)
        if images[place]
    ]
    return _table("share classified right (%)", "images", list(columns), rows, len(groups))


def _teachers(bench: Bench, groups: Sequence[Group]) -> dict[str, np.ndarray]:
    """Logits of the teachers of the groups, each once, by what they are called."""
    names = {name: called for group in groups for called, name in bench.teachers[group.first.path].items()}
    titles = list(names.values())
    return {
        called if titles.count(called) == 1 else f"{called} ({number + 1})": bench.logits[name]
        for number, (name, called) in enumerate(names.items())
    }


def _tables(groups: Sequence[Group]) -> list[dict[str, Any]]:
    """Average precision of each class, of what runs of several labels an image and detectors wrote; a table for runs
    of the same classes."""
    alike: dict[tuple[str, ...], list[Group]] = {}
    for group in groups:
        if group.first.table:
            alike.setdefault(tuple(row["class"] for row in group.first.table[:-1]), []).append(group)
    made = []
    for classes, some in alike.items():
        first = some[0].first.table
        score = next((name for name in first[0] if name.startswith("AP")), None)
        if score is None:
            continue
        counts = next((name for name in ("positives", "objects") if name in first[0]), None)
        columns = [(group, [_column(run.table, classes, score) for run in group.runs]) for group in some]
        values = [
            (group.number % COLORS, np.mean([one for one in each if len(one)], axis=0)) for group, each in columns
        ]
        rows = [
            (
                printable(shown),
                int(first[place][counts] or 0) if counts else 0,
                [(color, float(value[place])) for color, value in values],
            )
            for place, shown in enumerate(names_for_people(classes))
        ]
        rows = [row for row in rows if any(np.isfinite(value) for _, value in row[2])]
        made.append(_table(f"{score} (%)", counts or "", [group.name for group in some], rows, len(some)))
    return made


def _column(table: Sequence[Mapping[str, str]], classes: Sequence[str], score: str) -> list[float]:
    """Empty where the table is of other classes, or damaged."""
    try:
        values = {row["class"]: float(row[score] or "nan") for row in table}
        return [values[name] for name in classes]
    except (KeyError, ValueError, TypeError):
        return []


def _table(
    title: str, count: str, columns: list[str], rows: list[tuple[str, int, list[tuple[int, float]]]], students: int
) -> dict[str, Any]:
    """The lowest classes and the highest, by the mean of the students."""
    rows = sorted(rows, key=lambda row: float(np.nanmean([value for _, value in row[2][:students]])))
    cut = len(rows) - _LOWEST - _HIGHEST
    shown = rows if cut <= 0 else [*rows[:_LOWEST], *rows[-_HIGHEST:]]
    return {"title": title, "count": count, "columns": columns, "rows": shown, "cut": max(0, cut), "at": _LOWEST}


def _confusions(bench: Bench, groups: Sequence[Group]) -> list[dict[str, Any]]:
    """Of each group a matrix, where few classes occur, else the confusions that are met most."""
    made = []
    for group in groups:
        counts = confusion(bench, logits_of(bench, group))
        present = np.flatnonzero(counts.sum(1))
        names = [bench.classes[place] for place in present]
        matrix, pairs = None, []
        if len(present) <= _SQUARES:
            inside = counts[np.ix_(present, present)]
            others = counts[present].sum(1) - inside.sum(1)
            columns = [*names, "others"] if others.any() else names
            matrix = heat(np.column_stack([inside, others]) if others.any() else inside, names, columns)
        else:
            off = counts.copy()
            np.fill_diagonal(off, 0)
            order = np.argsort(-off, axis=None, kind="stable")[:_PAIRS]
            for row, column in zip(*np.unravel_index(order, off.shape)):
                if off[row, column]:
                    share = off[row, column] / counts[row].sum()
                    pairs.append((bench.classes[row], _class(bench, int(column)), int(off[row, column]), float(share)))
        made.append({"group": group, "matrix": matrix, "pairs": pairs, "seeds": len(group.runs)})
    return made


def _class(bench: Bench, output: int) -> str:
    return bench.classes[output] if output < len(bench.classes) else f"output {output}"


def _missed(bench: Bench, groups: Sequence[Group]) -> dict[str, Any]:
    """Pictures, what is there, and what each group and teacher says."""
    cards, unread = list[dict[str, Any]](), 0
    said_by: list[tuple[int, str, list[np.ndarray]]] = [
        (group.number % COLORS, group.name, logits_of(bench, group)) for group in groups
    ]
    said_by += [(-1, called, [logits]) for called, logits in _teachers(bench, groups).items()]
    mistaken = [[wrong(bench, logits) for logits in some] for *_, some in said_by]  # [N] or [N, C] each
    for place in missed(bench, groups, _MISSED):
        try:
            picture = bench.picture(place, _SIDE)
        except DataError:
            unread += 1
            continue
        said = []
        for (color, name, some), mistakes in zip(said_by, mistaken):
            right = sum(not each[place].any() for each in mistakes)
            of_seeds = f"{right} of {len(some)} right" if len(some) > 1 else ""
            said.append((color, name, _said(bench, some[0], mistakes[0], place), of_seeds, 2 * right > len(some)))
        cards.append({"picture": picture, "truth": _truth(bench, place), "said": said})
    taught = any(bench.teachers[group.first.path] for group in groups)
    names = [(color, name) for color, name, _ in said_by]
    return {"about": _about(bench, groups), "names": names, "cards": cards, "taught": taught, "unread": unread}


def _truth(bench: Bench, place: int) -> str:
    if bench.task == "single_label":
        return bench.classes[bench.labels[place]]
    return (
        _listed([bench.classes[label] for label in np.flatnonzero(bench.labels[place] == 1)]) or "none of the classes"
    )


def _said(bench: Bench, logits: np.ndarray, mistaken: np.ndarray, place: int) -> str:
    """What a network predicts for an image, beside what is there."""
    if bench.task == "single_label":
        row = logits[place].astype(np.float64)
        shares = np.exp(row - row.max())
        return f"{_class(bench, int(row.argmax()))} {shares.max() / shares.sum():.0%}"
    there = bench.labels[place] == 1
    lacks = _listed([bench.classes[label] for label in np.flatnonzero(mistaken[place] & there)])
    adds = _listed([bench.classes[label] for label in np.flatnonzero(mistaken[place] & ~there)])
    return "; ".join(filter(None, [lacks and f"lacks {lacks}", adds and f"adds {adds}"])) or "all right"


def _listed(names: Sequence[str]) -> str:
    return ", ".join([*names[:_NAMES], *([f"{len(names) - _NAMES} more"] if len(names) > _NAMES else [])])


def _agreeing(bench: Bench, groups: Sequence[Group]) -> list[dict[str, Any]]:
    """A row for each group that has a teacher of its outputs."""
    made = []
    for group in groups:
        teacher = bench.taught_by(group.first)
        if teacher is None:
            continue
        found = agreement(bench, logits_of(bench, group), teacher)
        spread = [one.std(ddof=1) if len(one) > 1 else None for one in (found.equal, found.divergence)]
        made.append({"group": group, "found": found, "equal_spread": spread[0], "divergence_spread": spread[1]})
    return made


def _agreement(benches: Sequence[tuple[Bench, list[dict[str, Any]]]]) -> list[Chart]:
    """Equal predictions and divergence by what the teacher gives, of each bench and its rows of `_agreeing`."""
    charts = []
    for bench, agreeing in benches:
        rows = [(one["group"], one["found"]) for one in agreeing]
        if not rows:
            continue
        x = (np.arange(len(rows[0][1].counts)) + 0.5) / len(rows[0][1].counts) * 100
        what = "image" if bench.task == "single_label" else "prediction"
        notes = [f"{count:,} {what}{'' if count == 1 else 's'}" for count in rows[0][1].counts.tolist()]
        same = [Line(group.name, 100 * found.equal_by, group.number % COLORS) for group, found in rows]
        apart = [Line(group.name, found.divergence_by, group.number % COLORS) for group, found in rows]
        by = "teacher's probability (%)"
        charts.append(chart("equal predictions", x, same, x_name=by, unit="%", kind="bars", notes=notes))
        charts.append(chart("KL divergence, nats", x, apart, x_name=by, kind="bars", notes=notes))
    return charts


def _weights(groups: Sequence[Group], effects: Mapping[int, Effect]) -> list[Chart]:
    """Shares of the training images by WSLD's weight, and regularisation samples by temperature."""
    known = [(group, effects[group.number]) for group in groups if group.number in effects]
    if not known:
        return []
    edges = np.linspace(0, 1, 21)
    weights = [
        Line(group.name, 100 * np.histogram(effect.weights, edges)[0] / len(effect.weights), group.number % COLORS)
        for group, effect in known
    ]
    samples = [Line(group.name, 100 * effect.shares[:, 0], group.number % COLORS) for group, effect in known]
    temperatures = np.arange(1, len(known[0][1].shares) + 1)
    return [
        chart(
            "weights of WSLD",
            edges[:-1] + 0.025,
            weights,
            x_name="weight",
            unit="% of images",
            kind="bars",
            legend=True,
        ),
        chart(
            "regularisation samples", temperatures, samples, x_name="temperature", unit="%", from_zero=True, legend=True
        ),
    ]


def _found(bench: Bench, groups: Sequence[Group]) -> list[dict[str, Any]]:
    """Of each group, how many objects its students and its teacher find."""
    made = []
    for group in groups:
        teachers, theirs = list(bench.teachers[group.first.path].values()), None
        if teachers:
            theirs = _hits(bench, [matched(*pair) for pair in zip(bench.truth, bench.found[teachers[0]])])
        rows = []
        for run in group.runs:
            student = [matched(*pair) for pair in zip(bench.truth, bench.found[bench.students[run.path]])]
            hits = _hits(bench, student)
            row = {"objects": len(hits), "student": int(hits.sum())}
            row["false"] = sum(int((one.shown & ~one.right).sum()) for one in student)
            if theirs is not None:
                row |= {"teacher": int(theirs.sum()), "both": int((hits & theirs).sum())}
            rows.append(row)
        made.append({"group": group, **{name: mean(row[name] for row in rows) for name in rows[0]}})
    return made


def _hits(bench: Bench, matches: Sequence[Match]) -> np.ndarray:
    """Which of the objects of all images that are scored are found, bool."""
    return np.concatenate([one.hit[~truth.ignored] for one, truth in zip(matches, bench.truth)])


def _scenes(bench: Bench, groups: Sequence[Group]) -> dict[str, Any]:
    """Pictures with true boxes, and beside them those that the first students and the teacher find."""
    networks = [(group.name, bench.students[group.first.path]) for group in groups[:_PANELS]]
    for group in groups:
        networks += [(called, name) for called, name in bench.teachers[group.first.path].items()]
    networks = list({name: (title, name) for title, name in networks}.values())[: _PANELS + 1]
    cards, unread = list[dict[str, Any]](), 0
    for place in missed(bench, groups, _SCENES):
        try:
            picture = bench.picture(place, _SCENE_SIDE)
        except DataError:
            unread += 1
            continue
        truth = bench.truth[place]
        panels = [{"title": "true boxes", "boxes": _true_boxes(bench, truth), "sum": f"{len(truth.boxes)}"}]
        for title, name in networks:
            found = bench.found[name][place]
            match = matched(truth, found)
            hits = f"{int(match.hit.sum())} found, {int((match.shown & ~match.right).sum())} false"
            panels.append({"title": title, "boxes": _boxes(bench, truth, found, match), "sum": hits})
        cards.append({"picture": picture, "panels": panels, "number": len(cards)})
    taught = any(bench.teachers[group.first.path] for group in groups)
    return {"about": _about(bench, groups), "cards": cards, "taught": taught, "unread": unread}


def _true_boxes(bench: Bench, truth: Truth) -> list[dict[str, Any]]:
    return [
        _box(box, "ignored" if ignored else "true", bench.classes[label])
        for box, label, ignored in zip(truth.boxes, truth.classes, truth.ignored)
    ]


def _boxes(bench: Bench, truth: Truth, found: Detected, match: Match) -> list[dict[str, Any]]:
    """Detections that count, and the objects that none of them is of."""
    lost = ~match.hit & ~truth.ignored
    boxes = [_box(box, "lost", bench.classes[label]) for box, label in zip(truth.boxes[lost], truth.classes[lost])]
    for place in np.flatnonzero(match.shown):
        text = f"{bench.classes[found.classes[place]]} {found.scores[place]:.2f}"
        boxes.append(_box(found.boxes[place], "hit" if match.right[place] else "false", text))
    return boxes


def _box(box: np.ndarray, kind: str, text: str) -> dict[str, Any]:
    x1, y1, x2, y2 = (round(value, 1) for value in box.tolist())
    return {"x": x1, "y": y1, "width": round(x2 - x1, 1), "height": round(y2 - y1, 1), "kind": kind, "text": text}
