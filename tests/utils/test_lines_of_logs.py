"""Lines of metrics.jsonl that are no rows: each is left out, by its number and its field, and stops no command."""

import json
import shutil

import pytest

from figures import comparison, curves, runs
from figures.report.data import read_run
from utils.rows import read_rows

TIME = "2026-01-01T00:00:00+00:00"
TRAIN = {"kind": "train", "epoch": 1, "step": 1, "loss": 2.0, "seconds": 1.0, "time": TIME}
VAL = {"kind": "val", "epoch": 1, "step": 1, "top1": 50.0, "seconds": 1.0, "time": TIME}
DEEP = "[" * 100_000
WRONG = {
    "no JSON": "{",
    "its kind": [],
    "it has no epoch": {"kind": "val", "top1": 1.0},
    "it has no score": {"kind": "val", "epoch": 2},
    "time is 'yesterday'": {**VAL, "time": "yesterday"},
    "time is '2026-01-01'": {**VAL, "time": "2026-01-01"},  # in no zone, and so not to be compared
    "time is 3": {**TRAIN, "time": 3},
    "loss is 'low'": {**TRAIN, "loss": "low"},
    "loss is None": {**TRAIN, "loss": None},
    "top1 is [1]": {**VAL, "top1": [1]},
    "phase is {}": {**TRAIN, "phase": {}},
    "step is nan": {**TRAIN, "step": float("nan")},
    "step is -1": {**TRAIN, "step": -1},
    "epoch is inf": {**VAL, "epoch": float("inf")},
    "seconds is inf": {**VAL, "seconds": float("inf")},
    "lr is 1000": {**TRAIN, "lr": 10**400},
}


def write(path, *lines):
    path.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines))


@pytest.mark.parametrize("said", WRONG)
def test_a_line_that_is_no_row_is_left_out_by_name(tmp_path, said):
    write(tmp_path / "metrics.jsonl", TRAIN, WRONG[said], {**VAL, "top1": float("nan")})
    rows, remark = read_rows(tmp_path / "metrics.jsonl")
    assert [row["kind"] for row in rows] == ["train", "val"]
    assert remark.startswith("1 line cannot be read and is left out (line 2: ")
    assert said in remark
    assert len(remark) < 150


def test_no_command_ends_with_them(finished, tmp_path, ran):
    folder = shutil.copytree(finished, tmp_path / "runs/damaged")
    for said in WRONG:
        write(folder / "metrics.jsonl", WRONG[said], VAL)
        assert read_run(folder).score == 50
        assert said in " ".join(read_run(folder).notes)
    write(folder / "metrics.jsonl", *WRONG.values(), DEEP, VAL)
    named = f"{folder / 'metrics.jsonl'}: {len(WRONG) + 1} lines cannot be read and are left out (line 1: "
    for command in (curves.main, comparison.main):
        assert named in ran(command, folder).stderr
    shutil.copytree(finished, tmp_path / "runs/whole")
    (folder / "config.json").write_text(DEEP)
    states = {run.folder: run.state for run in runs.list_runs([tmp_path / "runs"])}
    assert states == {str(folder): "damaged", str(tmp_path / "runs/whole"): "done"}
    for command in (curves.main, comparison.main):
        done = ran(command, folder, tmp_path / "runs/whole", code=3 if command is comparison.main else 0)
        assert ("nested too deeply" in done.stderr) == (command is comparison.main)
