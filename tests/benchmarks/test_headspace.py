"""What a run would gain from a faster loader, for configs of every kind."""

import json
import sys

import pytest
from small_multi_label import write_data

from benchmarks import headspace

PHASES = """
from dataclasses import replace
from configs.digits import cfg as digits
from knowledge_distiller import Term
from training.phases import Phase

base = digits("wsld")
alone = Phase(1, {"cross_entropy": Term("cross_entropy")}, base.last.optim)
cfg = replace(base, phases={"alone": alone, "last": base.last})
"""


@pytest.fixture
def measured(monkeypatch, capsys, tmp_path):
    """The lines that benchmarks.headspace prints for a few steps."""

    def call(*more):
        words = ["headspace", *more, "--steps", "2", "--rounds", "1", f"train_params.output_path={tmp_path / 'runs'}"]
        monkeypatch.setattr(sys, "argv", words)
        headspace.main()
        assert not (tmp_path / "runs").exists()
        return [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    return call


@pytest.mark.parametrize("workers", [0, 1])
def test_both_rates_their_ratio_and_where_the_time_went(digits, measured, workers):
    words = ["--cfg", "configs/digits.py", "method=wsld", f"data.data_path={digits / 'lmdb'}", "data.batch_size=20"]
    loader, cached, both = measured(*words, f"data.num_workers={workers}")
    assert (loader["way"], cached["way"]) == ("loader", "cached batches")
    assert both["ratio"] == pytest.approx(cached["images_per_second"] / loader["images_per_second"], rel=0.02)
    assert (both["batch"], both["num_workers"]) == (20, workers)
    shares = both["shares"]
    assert min(shares.values()) >= 0
    assert shares["teacher"] > 0
    assert sum(shares[name] for name in ("data", "copy", "teacher", "student", "optimizer")) <= 1.005


def test_the_last_phase_of_the_last_run(digits, measured, tmp_path):
    (tmp_path / "phases.py").write_text(PHASES)
    words = ["--cfg", str(tmp_path / "phases.py"), f"data.data_path={digits / 'lmdb'}", "data.batch_size=20"]
    assert "teacher" in measured(*words)[-1]["shares"]
    folder = write_data(tmp_path / "squares")
    many = measured("--cfg", str(folder / "small.py"), f"data.data_path={folder / 'lmdb'}")
    assert many[-1]["run"] == "voc_tiny_l2d_tiny"
    assert many[-1]["shares"]["teacher"] > 0


@pytest.mark.parametrize(
    ("words", "message"), [(["--steps", "0"], "--steps 0: at least 1"), (["data.num_worker=1"], "data.num_workers")]
)
def test_wrong_words_are_refused(monkeypatch, capsys, words, message):
    monkeypatch.setattr(sys, "argv", ["headspace", *words])
    with pytest.raises(SystemExit, match="2"):
        headspace.main()
    assert message in capsys.readouterr().err
