"""The list of runs."""

import dataclasses
import json
import math
import os
import shutil
import subprocess
import sys
from datetime import datetime, timezone

import pytest

from figures import comparison, log, runs
from imagenet_train_cfg import cfg as imagenet
from teachers import TeacherConfig
from utils.errors import DataError, UsageError
from utils.settings import settings

HOLD = """\
import fcntl, sys
file = open(sys.argv[1], "a")
fcntl.flock(file, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


def config_of(folder, *, student="net8", teacher="net20", terms=("cross_entropy", "kd"), seed=0, weight=1.0, epochs=3):
    teachers = {"teacher": {"name": teacher}} if teacher else {}
    made = {name: {"objective": name, "weight": weight, "options": {}} for name in terms}
    return {
        "name": folder.name,
        "data": {"batch_size": 4},
        "student": {"name": student},
        "teachers": teachers,
        "phases": {"distillation": {"epochs": epochs, "terms": made}},
        "train_params": {"seed": seed, "output_path": str(folder.parent)},
    }


def run_of(folder, scores=(), minute=0, **settings):
    """A run folder with a score an epoch."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config_of(folder, **settings)))
    (folder / "environment.json").write_text("{}")
    rows = [
        {
            **{"kind": "val", "epoch": epoch, "step": epoch, "top1": score, "loss": 1.0, "ema_top1": score + 1},
            **{"seconds": 60.0 * epoch, "time": f"2026-11-26T10:{minute + epoch:02}:00+00:00"},
        }
        for epoch, score in enumerate(scores, 1)
    ]
    if rows:
        (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def states(folder):
    return {os.path.relpath(run.folder, folder): run.state for run in runs.list_runs([folder])}


def test_settings_that_change_nothing_of_the_result_are_not_compared():
    """Each of them is one that a run may resume with; the others of these say from what and how it learned."""
    teacher = TeacherConfig("resnet34", "x.pth", options={"store": 1})
    cfg = dataclasses.replace(imagenet, teachers={"teacher": teacher})
    free = {one.key for one in settings(cfg) if not one.affects_result}
    left_out = {
        key for key in log.settings_of(json.loads(json.dumps(dataclasses.asdict(cfg)))) if not log.is_compared(key)
    }
    assert left_out <= free
    assert {"name", "train_params.print_freq", "data.num_workers", "teachers.teacher.store"} < left_out
    told = {"data.data_path", "data.on_fault", "student.folder", "teachers.teacher.folder"}
    assert free - left_out == told | {
        f"train_params.{name}" for name in ("amp", "channels_last", "compile", "accumulate")
    }


def test_json_has_null_for_what_is_no_number(tmp_path, monkeypatch, capsys):
    run_of(tmp_path / "a", [math.nan])
    run_of(tmp_path / "b", [50.0], weight=math.inf)
    monkeypatch.setattr("sys.argv", ["", str(tmp_path), "--json", "--sort", "name"])
    runs.main()
    a, b = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert (a["best"], a["epoch"], b["best"], b["differs"]["terms.kd.weight"]) == (None, 1, 51.0, None)
    table = comparison.compare([tmp_path / "a", tmp_path / "b"], tmp_path / "both.json")
    assert table.endswith(f"\n{tmp_path / 'both.png'}")
    a, b = json.loads((tmp_path / "both.json").read_text(), parse_constant=pytest.fail)
    assert (a["scores"]["top1"], b["scores"]["top1"]) == (None, 50.0)


def test_what_a_run_is_and_how_far(tmp_path):
    run_of(tmp_path / "deep/er/a", [50.0, 70.0, 60.0], seed=1)
    run_of(tmp_path / "deep/er/b", [40.0], minute=30, weight=2.5)
    run_of(tmp_path / "deep/c", teacher=None, terms=["cross_entropy"])
    (tmp_path / "deep/c/exported").mkdir()
    (tmp_path / "deep/c/exported/config.json").write_text("{}")  # of something else
    (tmp_path / "deep/loop").symlink_to(tmp_path / "deep")
    c, a, b = runs.list_runs([tmp_path])
    assert [(run.state, run.epochs, run.of) for run in (a, b, c)] == [
        ("done", 3, 3),
        ("stopped", 1, 3),
        ("never started", 0, 3),
    ]
    assert (a.score, a.best, a.epoch, a.seconds, a.date) == ("top1", 71.0, 2, 180.0, "2026-11-26T10:03:00+00:00")
    assert (c.score, c.best, c.epoch, c.seconds) == (None, None, None, None)
    assert (a.student, a.teachers, a.terms) == ("net8", ["net20"], [["cross_entropy", "kd"]])
    assert (c.teachers, c.terms) == ([], [["cross_entropy"]])
    assert a.differs == {"terms.cross_entropy.weight": 1.0, "terms.kd.weight": 1.0, "train_params.seed": 1}
    assert b.differs == {"terms.cross_entropy.weight": 2.5, "terms.kd.weight": 2.5, "train_params.seed": 0}
    assert runs.list_runs([tmp_path / "deep/er/a", tmp_path / "deep/er/a"])[0].epochs == 3


def test_a_score_that_is_no_number_is_never_the_best(tmp_path):
    run_of(tmp_path / "a", [math.nan, 40.0, 30.0])
    (run,) = runs.list_runs([tmp_path])
    assert (run.best, run.epoch) == (41.0, 2)
    run_of(tmp_path / "b", [math.nan, math.nan])
    run_of(tmp_path / "c", [50.0])
    listed = runs.list_runs([tmp_path])
    assert listed[1].epoch == 2  # without labels: the student after the last epoch is kept
    assert [run.folder[-1] for run in sorted(listed, key=runs._ORDERS["best"])] == ["c", "a", "b"]


def test_states(tmp_path):
    live, dead, ended = (run_of(tmp_path / name, [50.0]) for name in ("live", "dead", "ended"))
    (dead / runs.DIVERGED).write_text("the loss is not finite at step 3\n")
    early = run_of(tmp_path / "early")
    (early / "last.pt").touch()
    for run in (live, dead, ended):
        (run / ".lock").touch()
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(live / ".lock")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout.readline() == "held\n"
        found = states(tmp_path)
        holder.stdin.close()
    assert found == {"dead": "diverged", "early": "stopped", "ended": "stopped", "live": "training"}
    assert states(tmp_path)["live"] == "stopped"


def test_damaged_runs_are_named_and_the_others_listed(tmp_path, capsys):
    good = run_of(tmp_path / "good", [50.0])
    with (good / "metrics.jsonl").open("a") as file:
        file.write('garbage\n{"kind": "val", "epo')
    spoiled = {
        "no_json": ("config.json", "{"),
        "no_object": ("config.json", "[1]"),
        "no_phases": ("config.json", '{"phases": {}}'),
        "no_student": ("config.json", '{"phases": {"a": {"epochs": 1, "terms": {}}}}'),
    }
    for name, (file, text) in spoiled.items():
        (run_of(tmp_path / name, [60.0]) / file).write_text(text)
    (run_of(tmp_path / "no_config", [60.0]) / "config.json").unlink()
    found = runs.list_runs([tmp_path])
    printed = capsys.readouterr().err
    assert f"{good / 'metrics.jsonl'}: 1 line cannot be read and is left out (line 2: it is no JSON)" in printed
    assert {run.folder for run in found if run.state == "damaged"} == {
        str(tmp_path / name) for name in (*spoiled, "no_config")
    }
    assert all(run.damage for run in found if run.state == "damaged")
    text = runs.table(found)
    assert f"{tmp_path / 'no_json' / 'config.json'} is damaged" in text.replace("\n      ", " ")
    assert "top1 51.000 @1  1/3     stopped" in text
    with pytest.raises(DataError, match="is damaged"):
        log.read_config(tmp_path / "no_json")
    config = json.loads((good / "config.json").read_text())
    (good / "config.json").write_text(json.dumps({**config, "task_options": 1.5}))
    with pytest.raises(DataError, match=r"task_options is 1\.5, which it cannot be"):
        log.read_config(good)


def test_runs_of_older_versions(tmp_path):
    folder = run_of(tmp_path / "old")
    config = config_of(folder)
    old = {**config, "terms": config["phases"]["distillation"]["terms"], "train_params": {"epochs": 2, "seed": 0}}
    del old["phases"]
    (folder / "config.json").write_text(json.dumps(old))
    rows = [{"kind": "val", "stage": "", "epoch": epoch, "step": epoch, "top1": 10.0 * epoch} for epoch in (1, 2)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    os.utime(folder / "metrics.jsonl", (0, 0))
    (run,) = runs.list_runs([tmp_path])
    assert (run.state, run.best, run.epochs, run.of) == ("done", 20.0, 2, 2)
    assert (run.seconds, run.date) == (None, datetime.fromtimestamp(0, timezone.utc).isoformat())
    assert "top1 20.000 @2  2/2     done            19" in runs.table([run])


def test_the_table_fits_a_terminal(tmp_path):
    for seed in range(3):
        run_of(tmp_path / f"kd_{seed}", [50.0], seed=seed, weight=2.0)
    for number in range(4):
        run_of(tmp_path / f"alone_{number}", [30.0, 40.0], teacher=None, terms=["cross_entropy"])
    found = runs.list_runs([tmp_path])
    lines = runs.table(found).splitlines()
    assert len(lines) == 1 + 2 * len(found)
    assert all(len(line) <= 100 or str(tmp_path) in line for line in lines)
    kd = lines[1 + next(n for n, line in enumerate(lines) if line.endswith("kd_1"))]
    assert kd == "    net8 from net20; cross_entropy + kd; train_params.seed=1 terms.cross_entropy.weight=2.0"
    assert (
        lines[1 + next(n for n, line in enumerate(lines) if line.endswith("alone_1"))]
        == "    net8 alone; cross_entropy"
    )
    _, *narrow = runs.table(found, 60).splitlines()
    assert all(len(line) <= 60 or str(tmp_path) in line for line in narrow)


def test_order_and_json(tmp_path, monkeypatch, capsys):
    run_of(tmp_path / "b", [50.0], minute=10)
    run_of(tmp_path / "a", [60.0, 60.0])
    run_of(tmp_path / "c")

    def printed(*words):
        monkeypatch.setattr("sys.argv", ["", str(tmp_path), *words])
        runs.main()
        return capsys.readouterr().out

    def order(*words):
        return "".join(line[-1] for line in printed(*words).splitlines()[1::2])

    assert (order(), order("--sort", "best"), order("--sort", "time")) == ("cba", "abc", "abc")
    rows = json.loads(printed("--json", "--sort", "name"))
    assert [(row["folder"], row["best"]) for row in rows] == [
        (str(tmp_path / "a"), 61.0),
        (str(tmp_path / "b"), 51.0),
        (str(tmp_path / "c"), None),
    ]


def test_without_runs(tmp_path, ran):
    assert ran(runs.main, tmp_path).stdout == f"no runs below {tmp_path}\n"
    with pytest.raises(UsageError, match="no such folder"):
        runs.list_runs([tmp_path / "missing"])


def test_a_real_run_is_listed(finished, tmp_path, ran):
    shutil.copytree(finished, tmp_path / "run")
    (run,) = runs.list_runs([tmp_path])
    assert (run.state, run.score, run.epochs, run.of) == ("done", "top1", 3, 3)
    assert run.student in ran(runs.main, tmp_path).stdout
