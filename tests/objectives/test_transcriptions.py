"""The objectives beside the formulas of the papers' repositories: values and gradients, and how they are measured."""

import pytest
import torch

from benchmarks import transcriptions
from benchmarks.objectives import NAMES, Sizes, Tensors, build, check, measure, peak
from utils.errors import UsageError

CPU = torch.device("cpu")
SMALL = Sizes(batch=6, classes=5, stages=((4, 8), (6, 8), (5, 4)), samples=40, contrasts=9)


@pytest.fixture
def tensors():
    return Tensors(SMALL, CPU, torch.float64)


@pytest.mark.parametrize("name", NAMES)
def test_values_and_gradients_are_those_of_the_transcription(name, tensors):
    pair = build(name, tensors)
    values = [side() for side in (pair.ours, pair.theirs)]
    torch.testing.assert_close(*values, rtol=1e-9, atol=0)
    for ours, theirs in zip(*(torch.autograd.grad(value, pair.learned, allow_unused=True) for value in values)):
        torch.testing.assert_close(ours, theirs, rtol=1e-7, atol=1e-9)


def test_a_pair_that_does_not_agree_is_named(tensors, monkeypatch):
    monkeypatch.setattr(transcriptions, "kd", transcriptions.ttm)
    with pytest.raises(UsageError, match=r"kd: .* is not what its transcription gives"):
        check("kd", tensors)


def test_both_sides_are_measured(tensors):
    row = measure(build("nst", tensors), rounds=1, device=CPU)
    assert row["milliseconds"] > 0
    assert row["transcription_peak_mb"] > row["peak_mb"] > 0


def test_the_peak_counts_what_is_there_at_once():
    def allocate():
        first, second = torch.empty(1000), torch.empty(2000)
        del first
        return second, torch.empty(500)

    kept = torch.empty(10_000)
    assert peak(allocate, CPU) == 3000 * kept.element_size()
