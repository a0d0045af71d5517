"""Votes of the nearest neighbours."""

import math

import pytest
import torch
from conftest import call
from neighbour_ranks import added, sample

from evaluation.neighbours import TEMPERATURE
from utils.errors import DataError


def slow(features, labels, nearest):
    """The share of images whose own class gets the most votes of the others, percent."""
    right = 0
    units = [row / row.norm() for row in features.double()]
    for i, one in enumerate(units):
        others = sorted(((float(one @ other), j) for j, other in enumerate(units) if j != i), reverse=True)[:nearest]
        votes = {}
        for similarity, j in others:
            votes[int(labels[j])] = votes.get(int(labels[j]), 0) + math.exp(similarity / TEMPERATURE)
        right += max(votes, key=votes.get) == int(labels[i])
    return 100 * right / len(units)


def test_by_hand():
    """The two of one class are each other's nearest; the others' nearest are of another class."""
    features = torch.tensor([[1.0, 0.0], [5.0, 0.5], [0.0, 3.0], [1.0, 1.0]])
    metrics = added(features, torch.tensor([0, 0, 1, 2]), [range(4)], nearest=1)
    assert metrics.compute() == {"knn": 50.0, "images": 4}


@pytest.mark.parametrize("nearest", [1, 5, 20, 100])
def test_as_a_slow_loop_has_it(nearest):
    generator = torch.Generator().manual_seed(1)
    labels = torch.randint(0, 4, (60,), generator=generator)
    features = torch.randn(60, 6, generator=generator) + 2 * torch.eye(4, 6)[labels]
    found = added(features, labels, [range(20), range(20, 60)], nearest).compute()
    assert found["knn"] == pytest.approx(slow(features, labels, nearest))
    assert 25 < found["knn"] < 100


def test_however_samples_lie_on_ranks_and_in_batches(tmp_path):
    whole = added(*sample(), [range(41)]).compute()
    assert added(*sample(), [range(40, 20, -1), range(21)]).compute() == whole
    printed = call("tests/evaluation/neighbour_ranks.py", str(tmp_path)).stdout
    assert printed.count(str(whole)) == 4
    assert printed.count(str({"knn": math.nan, "images": 42})) == 2  # where one lacks features there is no score


def test_without_labels_there_is_no_score_and_without_images_an_error():
    features, labels = sample()
    assert math.isnan(added(features, torch.full_like(labels, -1), [range(41)]).compute()["knn"])
    with pytest.raises(DataError, match="not one validation image"):
        added(features, labels, []).compute()
