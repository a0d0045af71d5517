"""Scores against a slow reference; test_parts.py has the cases worked by hand."""

import math

import pytest
import torch
from dataset_helpers import examples
from hypothesis import given
from hypothesis import strategies as st

from evaluation.topk import evaluate
from utils.errors import DataError

CPU = torch.device("cpu")


def sample(images, classes, seed):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(images, classes, generator=generator)
    return logits, torch.randint(0, classes, (images,), generator=generator)


def split(logits, labels, sizes):
    return [{"images": a, "labels": b} for a, b in zip(logits.split(sizes), labels.split(sizes), strict=True)]


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
    scores = evaluate(lambda images: images, split(logits, labels, sizes), CPU)
    assert scores == pytest.approx(slow(logits, labels), rel=1e-6)


def test_each_sample_counts_once_and_not_each_batch():
    logits, labels = torch.eye(6), torch.tensor([0, 0, 0, 0, 0, 0])
    scores = evaluate(lambda images: images, split(logits, labels, [1, 5]), CPU)
    assert scores["top1"] == pytest.approx(100 / 6)  # the mean of the batches' scores would be 50


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_logits_are_summed_in_float64(dtype):
    logits, labels = torch.zeros(4000, 10, dtype=dtype), torch.zeros(4000, dtype=torch.int64)
    scores = evaluate(lambda images: images, split(logits, labels, [1000] * 4), CPU)
    assert scores["loss"] == pytest.approx(math.log(10), rel=1e-6)
    assert scores["images"] == 4000


def test_no_graph_is_kept():
    weight, seen = torch.ones(1, requires_grad=True), []
    logits, labels = sample(4, 3, 0)
    evaluate(lambda images: seen.append(images * weight) or seen[-1], split(logits, labels, [4]), CPU)
    assert not seen[0].requires_grad


def test_no_image_at_all_is_named():
    with pytest.raises(DataError, match="not one validation image could be read"):
        evaluate(lambda images: images, [], CPU)
