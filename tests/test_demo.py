"""The multi-label demo from end to end, on a few canvases and for an epoch."""

import gc
import runpy
import sys

import pytest

from demo import multilabel


@pytest.fixture
def small(tmp_path, monkeypatch):
    """The demo in this process, in a folder of its own; it gives the commands that were run."""
    commands = []

    def run_tool(*command):
        commands.append(command)
        script, *flags = (word for word in command if word not in ("--at_a_time", "2"))  # all in this process
        short = ["*.epochs=1"] if script.startswith("train") else ["--num_workers", "1"]
        monkeypatch.setattr(sys, "argv", [script, *flags, *short])
        runpy.run_path(script, run_name="__main__")
        gc.collect()  # shards that were open

    monkeypatch.setattr(multilabel, "WORK", tmp_path)
    monkeypatch.setattr(multilabel, "SEEDS", (0,))
    monkeypatch.setattr(multilabel, "CANVASES", {"train": 25, "val": 9})  # too few to judge a teacher by
    monkeypatch.setattr(multilabel, "run_tool", run_tool)
    return commands


def test_it_draws_packs_trains_and_compares_and_does_not_repeat(small, tmp_path, capfd):
    multilabel.main()
    table = capfd.readouterr().out.partition("last epoch")[2]
    for title in multilabel.ROWS:
        scores = table.partition(f"  {title} ")[2].splitlines()[0].split()
        assert [0 <= float(score) <= 100 for score in scores] == [True] * 3, title
    assert (tmp_path / "curves.png").exists()
    runs = tmp_path / "runs"
    assert len([*runs.glob("*/per_class.csv")]) == len([*runs.glob("*/per_class.png")]) == 7
    before = {path: path.stat().st_mtime_ns for path in runs.glob("*/student.safetensors")}
    assert len(before) == 9
    multilabel.run_tool(*small[-1])
    assert capfd.readouterr().out.count(": trained before") == 8
    assert {path: path.stat().st_mtime_ns for path in before} == before
