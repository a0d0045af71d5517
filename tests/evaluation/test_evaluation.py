"""Scores by hand and against a slow reference."""

import math

import pytest
import torch
from batches import batch_of
from dataset_helpers import examples
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from evaluation.topk import TopK
from models.outputs import Outputs
from utils.errors import DataError

CPU = torch.device("cpu")


def sample(images, classes, seed):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(images, classes, generator=generator)
    return logits, torch.randint(0, classes, (images,), generator=generator)


def scores_of(logits, labels, sizes):
    metrics = TopK(CPU)
    for part, known in zip(logits.split(sizes), labels.split(sizes), strict=True):
        metrics.add(Outputs(part), batch_of(torch.zeros(len(known), 3, 1, 1, dtype=torch.uint8), known))
    return metrics.compute()


def slow(logits, labels):
    top1 = top5 = loss = 0.0
    for row, label in zip(logits.double().tolist(), labels.tolist(), strict=True):
        rank = sum(value > row[label] for value in row)
        top1, top5 = top1 + (rank < 1), top5 + (rank < 5)
        loss += math.log(sum(math.exp(value) for value in row)) - row[label]
    count = len(labels)
    return {"top1": 100 * top1 / count, "top5": 100 * top5 / count, "loss": loss / count, "images": count}


@examples(30)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=5), st.integers(2, 12), st.integers(0, 10**6))
def test_against_the_slow_reference_in_uneven_batches(sizes, classes, seed):
    logits, labels = sample(sum(sizes), classes, seed)
    scores = scores_of(logits, labels, sizes)
    assert scores == pytest.approx(slow(logits, labels), rel=1e-5)


def test_each_sample_counts_once_and_not_each_batch():
    logits, labels = torch.eye(6), torch.tensor([0, 0, 0, 0, 0, 0])
    scores = scores_of(logits, labels, [1, 5])
    assert scores["top1"] == pytest.approx(100 / 6)  # the mean of the batches' scores would be 50


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_logits_are_summed_in_float64(dtype):
    logits, labels = torch.zeros(4000, 10, dtype=dtype), torch.zeros(4000, dtype=torch.int64)
    scores = scores_of(logits, labels, [1000] * 4)
    assert scores["loss"] == pytest.approx(math.log(10), rel=1e-6)
    assert scores["images"] == 4000


def test_no_image_at_all_is_named():
    with pytest.raises(DataError, match="not one validation image could be read"):
        TopK(CPU).compute()


def test_scores_by_hand():
    logits = torch.tensor([[9.0, 1, 2, 3, 4, 5], [0, 9, 8, 7, 6, 5], [9, 8, 7, 6, 5, 4]])
    labels = torch.tensor([0, 2, 5])  # first; among five; last of six
    loss = F.cross_entropy(logits, labels).item()
    expected = {"top1": 100 / 3, "top5": 200 / 3, "loss": loss, "images": 3}
    assert scores_of(logits, labels, [1, 2]) == pytest.approx(expected)


def test_fewer_than_five_classes_have_a_top5():
    scores = scores_of(torch.eye(3), torch.tensor([0, 1, 1]), [3])
    assert (scores["top1"], scores["top5"]) == pytest.approx((200 / 3, 100))
