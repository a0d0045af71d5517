"""What the runs that are killed have taken: what the comparison must see, and a short form of the benchmark."""

import json

import pytest
from conftest import call

from benchmarks.consumption import Difference, Taken, compare, read


def run_of(*steps, process="a", world=1, start=0.0):
    """What one process a rank takes: of each step the samples."""
    taken = []
    for number, (step, samples) in enumerate(steps):
        share = len(samples) // world
        for rank in range(world):
            part = samples[rank * share : (rank + 1) * share]
            taken.append(Taken(f"{process}{rank}", start + number, rank, world, step // 2, step, part))
    return taken


WHOLE = [(0, [3, 1, 0, 2]), (1, [7, 4, 6, 5]), (2, [1, 0, 4, 3]), (3, [5, 2, 7, 6])]


@pytest.mark.parametrize("world", [1, 2, 4])
def test_a_run_that_is_killed_and_goes_on_on_any_number_of_ranks_differs_in_nothing(world):
    killed = run_of(*WHOLE[:3]) + run_of(*WHOLE[2:], process="b", world=world, start=10)
    assert compare(killed, run_of(*WHOLE)) == Difference(0, 0, 0, 1)


def test_what_is_lost_doubled_or_other_is_seen():
    whole = run_of(*WHOLE)
    assert compare(run_of(*WHOLE[:2], WHOLE[3]), whole).lost == 4
    assert compare(run_of(*WHOLE[:2], WHOLE[3]), whole).doubled == 1  # out of turn
    assert compare(run_of(*WHOLE, WHOLE[3]), whole).doubled == 1
    other = compare(run_of(*WHOLE[:3], (3, [5, 2, 7, 7])), whole)
    assert (other.other, other.lost) == (1, 1)
    twice = run_of(*WHOLE[:3], (3, [5, 2, 7, 1]))
    assert compare(twice, twice).doubled == 1  # an epoch of the whole run itself


def test_a_line_that_a_kill_cut_off_is_left_out(tmp_path):
    taken = run_of(*WHOLE)
    text = "".join(f"{json.dumps(one)}\n" for one in taken)
    (tmp_path / "a.jsonl").write_text(text[:-9])
    assert read(tmp_path) == taken[:-1]


def test_killed_runs_take_every_sample_once(digits, tmp_path):
    words = ["--kills", "2", "--ranks", "3", "--work", str(tmp_path), f"data.data_path={digits / 'lmdb'}"]
    words += ["data.batch_size=24", "epochs=3", "data.num_workers=0"]
    row = json.loads(call("-m", "benchmarks.exactly_once", *words).stdout)
    assert (row["ranks"], row["steps"], row["lost"], row["doubled"], row["other"]) == (3, 15, 0, 0, 0)
    assert 1 <= row["kills_of_ranks"] + row["kills_of_jobs"] <= 2
    assert row["logs_equal"]
    assert row["checkpoints_equal"]
