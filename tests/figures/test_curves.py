"""Learning curves, from what runs log."""

import json

import numpy as np
import pytest
from matplotlib import pyplot as plt
from PIL import Image

from figures import curves
from utils.errors import UsageError


@pytest.fixture
def shown(monkeypatch):
    """Pictures that were drawn, before they are closed."""
    figures = []
    monkeypatch.setattr(plt, "close", figures.append)
    yield figures
    monkeypatch.undo()
    plt.close("all")


def run_of(folder, *, train=(), val=(), seed=0, terms=None, **settings):
    """A run folder with losses by step and rows of validation by epoch; without config.json where terms are None."""
    folder.mkdir(parents=True)
    rows = [{"kind": "train", "step": step, **row} for step, row in enumerate(train, 1)]
    rows += [{"kind": "val", "epoch": epoch, "step": epoch, **row, "seconds": 1.0} for epoch, row in enumerate(val, 1)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    if terms is not None:
        phase = {"epochs": 2, "terms": {name: {"objective": name, "options": {}} for name in terms}}
        params = {"seed": seed, "output_path": str(folder.parent)}
        config = {"name": folder.name, "phases": {"last": phase}, "train_params": params, **settings}
        (folder / "config.json").write_text(json.dumps(config))
    return folder


def lines_of(axes):
    """Label -> places and values."""
    return {line.get_label(): [one.tolist() for one in line.get_data()] for line in axes.lines}


def test_seeds_are_one_line_and_a_band(tmp_path, shown):
    scores = [[10, 40], [20, 60], [30, 50]]
    runs = [
        run_of(
            tmp_path / f"kd_seed={seed}",
            val=[{"top1": top1, "loss": 9 - top1 / 10} for top1 in of_seed],
            seed=seed,
            terms=["kd"],
        )
        for seed, of_seed in enumerate(scores)
    ]
    other = run_of(tmp_path / "other", val=[{"top1": 5, "loss": 1.0, "ema_top1": 6}], terms=["kd"], optim={"lr": 1})
    curves.draw([*runs, other], tmp_path / "curves.png")
    loss, score = shown[0].axes
    assert lines_of(score) == {
        "kd, 3 seeds": [[1, 2], [20, 50]],
        "other": [[1], [5]],
        "other, EMA": [[1], [6]],
    }
    (band,) = score.collections
    assert {tuple(point) for point in band.get_paths()[0].vertices} == {(1, 10), (1, 30), (2, 40), (2, 60)}
    assert loss.get_title() == "Validation loss"
    assert [line.get_ydata().tolist() for line in loss.lines] == [[7, 4], [1]]
    assert all(tick == int(tick) for tick in score.get_xticks())


def test_what_is_no_seed_stays_alone(tmp_path):
    runs = [run_of(tmp_path / name, terms=["kd"]) for name in "ab"]  # one seed twice
    bare = [run_of(tmp_path / name) for name in "cd"]  # settings that are not known
    older = run_of(tmp_path / "e", seed=1, terms=["kd"], optim={"lr": 1})
    found = curves.groups([*runs, *bare, older])
    assert [(group.name, group.runs) for group in found] == [(one.name, [one]) for one in (*runs, *bare, older)]


def test_a_seed_that_is_behind_hides_nothing_of_the_others(tmp_path, shown):
    behind = [[{"top1": 10}, {"top1": 30}], [{"top1": 20}], []]
    runs = [run_of(tmp_path / f"a{seed}", val=val, seed=seed, terms=["kd"]) for seed, val in enumerate(behind)]
    curves.draw(runs, tmp_path / "curves.png")
    assert lines_of(shown[0].axes[-1]) == {"a, 3 seeds": [[1, 2], [15, 30]]}


def test_losses_of_different_terms_are_on_no_axis(tmp_path, shown):
    rows = {"loss": 9.0, "detection": 1.0}
    one = run_of(tmp_path / "one", train=[{**rows, "dkd": 3.0}], val=[{"AP": 1}], terms=["detection", "dkd"])
    two = run_of(tmp_path / "two", train=[{**rows, "pkd": 5.0}] * 2, val=[{"AP": 2}], terms=["detection", "pkd"])
    other = run_of(tmp_path / "other", train=[{"loss": 1.0, "kd": 1.0}], val=[{"AP": 2}], terms=["kd"])
    task = run_of(tmp_path / "task", train=[{"loss": 1.0, "kd": 1.0}], val=[{"top1": 2, "loss": 3}], terms=["kd"])
    for number, runs in enumerate(([one, two], [one, other], [other, task])):
        curves.draw(runs, tmp_path / f"{number}.png")
    both, apart, tasks = (figure.axes for figure in shown)
    assert both[0].get_title() == "Training loss: detection"
    assert [line.get_ydata().tolist() for line in both[0].lines] == [[1], [1, 1]]
    assert [axes.get_title() for axes in apart] == ["Validation AP"]
    assert [axes.get_title() for axes in tasks] == ["Validation AP and top1"]


@pytest.mark.parametrize(
    "row", [{"kind": "train", "step": 1, "loss": 2.0, "time/data": 0.5}, {"kind": "val", "epoch": 1, "top1": 5}]
)
def test_one_line_is_a_point(row, tmp_path, shown):
    (tmp_path / "metrics.jsonl").write_text(json.dumps(row) + "\n")
    curves.draw([tmp_path], tmp_path / "curves.png")
    loss, score = shown[0].axes
    (line,) = (loss if row["kind"] == "train" else score).lines
    assert len(line.get_xdata()) == 1
    assert line.get_marker() == "."
    (tmp_path / "metrics.jsonl").write_text("")
    curves.draw([tmp_path], tmp_path / "curves.png")


def test_phases_are_lines_of_their_own(tmp_path, shown):
    run = run_of(tmp_path / "a", train=[{"phase": phase, "loss": float(step)} for step, phase in enumerate("hhll")])
    curves.draw([run], tmp_path / "curves.png")
    assert lines_of(shown[0].axes[0]) == {"h": [[1, 2], [0, 1]], "l": [[3, 4], [2, 3]]}


def test_a_folder_without_metrics_is_named(tmp_path):
    with pytest.raises(UsageError, match="is not a run folder"):
        curves.draw([tmp_path], tmp_path / "curves.png")


def test_curves_of_several_runs_leave_each_its_own(tmp_path, ran):
    rows = [{"kind": "train", "step": 1, "loss": 2.0}, {"kind": "val", "epoch": 1, "top1": 50.0}]
    runs = [tmp_path / name for name in "ab"]
    for run in runs:
        run.mkdir()
        (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert ran(curves.main, runs[0]).stdout.strip() == str(runs[0] / "curves.png")
    assert ran(curves.main, *runs).stdout.strip() == str(tmp_path / "curves.png")


def test_curves_show_where_the_time_went_of_a_run_that_says_so(tmp_path):
    shares = {"time/data": 0.1, "time/student": 0.8, "time/decode": 0.5, "time/slot": 0.4}
    rows = [{"kind": "train", "step": step, "loss": 2.0, **(shares if step > 2 else {})} for step in range(1, 9)]
    for name, kept in {"new": rows, "old": rows[:2]}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in kept))
        curves.draw([tmp_path / name], tmp_path / f"{name}.png")
    with Image.open(tmp_path / "new.png") as new, Image.open(tmp_path / "old.png") as old:
        assert (new.width, old.width) == (1800, 1320)
        colours = set(map(tuple, np.asarray(new.convert("RGB"))[:, 1320:].reshape(-1, 3).tolist()))
    assert {(31, 119, 180), (148, 103, 189), (214, 39, 40)} <= colours  # student, data, slot
