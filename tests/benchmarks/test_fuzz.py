"""Hostile files end no process: the short form of `benchmarks/fuzz.py`."""

import numpy as np
import pytest
from conftest import call

from benchmarks import fuzz
from dataset.jpeg.header import BadImage


def test_hostile_files_end_no_process(tmp_path):
    done = call("-m", "benchmarks.fuzz", "--files", "1000", "--unchecked", "--work", str(tmp_path))
    assert "1000 files, unchecked: 0 faults" in done.stdout
    assert not list(tmp_path.iterdir())


def test_a_fault_is_counted_and_its_file_kept(tmp_path, monkeypatch, capsys):
    def fails(_data, _random):
        raise IndexError("beyond")

    def refuses(_data, _random):
        raise BadImage("damaged")

    monkeypatch.setattr(fuzz, "_read_whole", fails)
    monkeypatch.setattr(fuzz, "_read_windows", refuses)
    monkeypatch.setattr(fuzz, "_rewrite", refuses)
    fuzz.run_piece(0, range(5, 7), tmp_path)
    assert capsys.readouterr().out.splitlines() == [f"file {n}, fails: IndexError: beyond" for n in (5, 6)]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["5.bin", "6.bin"]


@pytest.mark.parametrize("number", range(3))
def test_a_file_depends_on_its_number_alone(number):
    one, other = (fuzz.mutated(np.random.default_rng([0, number]), fuzz.sources()) for _ in range(2))
    assert one == other
