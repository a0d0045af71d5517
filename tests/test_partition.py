"""Partitions of labels: the graph's golden values, parts that are found again, files of both forms, the tool."""

import gzip
import json
import os
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from sklearn.metrics import adjusted_rand_score
from small_multi_label import CLASSES, write_data

from partition import Partition, read_partition
from partition.__main__ import main
from partition.graph import affinity, cooccurrence, partition
from utils.errors import DataError, UsageError

GOLDEN = np.load(ROOT / "tests/golden/cpsd_partition.npz")
LISTS = Path(os.environ.get("LIMBECK_DATA", ROOT / "../shared/data")) / "nuswide_lists"


def golden(case, name):
    return GOLDEN[f"{case}.{name}"]


@pytest.mark.parametrize("case", GOLDEN["cases"].tolist())
def test_golden_graphs(case):
    labels = golden(case, "in.labels01").astype(np.int8)
    together, counts = cooccurrence(labels)
    assert np.array_equal(together, golden(case, "in.adj"))
    assert np.array_equal(counts, golden(case, "in.nums"))
    for kind in ("CGP", "DGP"):
        expected = golden(case, f"affinity_{kind}")
        np.testing.assert_allclose(affinity(together, counts, kind), expected, rtol=1e-9, atol=1e-12)


def test_golden_blocks_are_found():
    labels = golden("blocks", "in.labels01").astype(np.int8)
    names = [f"c{number:03}" for number in range(labels.shape[1])]
    truth = golden("blocks", "true_blocks")
    made = partition(labels, names, "CGP", len(np.unique(truth)), 0)
    found = [next(n for n, part in enumerate(made.parts) if name in part) for name in names]
    assert adjusted_rand_score(truth, found) == 1
    assert adjusted_rand_score(golden("blocks", "labels_CGP"), found) == 1


def blocks(seed=0, images=400):
    """Labels of 12 classes that occur within groups of 5, 4 and 3, and now and then across."""
    random = np.random.default_rng(seed)
    groups = [range(5), range(5, 9), range(9, 12)]
    labels = np.zeros((images, 12), np.int8)
    for row in labels:
        row[random.choice(groups[random.integers(3)], 2, replace=False)] = 1
        row[random.integers(12)] |= random.random() < 0.05
    order = random.permutation(12)
    return labels[:, order], np.repeat([0, 1, 2], [5, 4, 3])[order]


def test_classes_that_occur_together_are_put_together():
    labels, truth = blocks()
    names = [f"c{number}" for number in range(12)]
    for seed in (0, 1):
        made = partition(labels, names, "CGP", 3, seed)
        assert (made.kind, made.seed) == ("CGP", seed)
        found = [next(n for n, part in enumerate(made.parts) if name in part) for name in names]
        assert adjusted_rand_score(truth, found) == 1
        assert made == partition(labels, names, "CGP", 3, seed)
        assert [part[0] for part in made.parts] == sorted((part[0] for part in made.parts), key=names.index)


@pytest.mark.parametrize("kind", ["CGP", "DGP", "random"])
def test_every_class_is_in_one_part(kind):
    labels, _ = blocks(3)
    labels[:, 4] = 0  # a class without images
    names = [f"c{number}" for number in range(12)]
    for parts in (1, 2, 5, 12):
        made = partition(labels, names, kind, parts, 0)
        assert sorted(made.classes) == sorted(names)
        assert len(made.parts) <= parts
    with pytest.raises(UsageError, match="--parts 13: from 1 to 12"):
        partition(labels, names, kind, 13, 0)


def test_files_of_both_forms_are_read_again(tmp_path):
    names = ["ape", "bee", "cat", "dog"]
    made = Partition((("cat", "ape"), ("dog", "bee")), "DGP", 7, "there")
    made.write(tmp_path / "ours.json")
    made.write_numbered(tmp_path / "theirs.json", names)
    assert json.loads((tmp_path / "theirs.json").read_text()) == [{"2": 0, "0": 1}, {"3": 0, "1": 1}]
    assert read_partition(tmp_path / "ours.json", names) == made
    assert read_partition(tmp_path / "theirs.json", names).parts == made.parts
    with pytest.raises(UsageError, match="numbers in place of names"):
        read_partition(tmp_path / "theirs.json")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ('{"parts": [["ape"], ["bee", "cat"]]}', "1 class missing in the partition: 'dog'"),
        ('{"parts": [["ape", "bee", "cat", "dog", "eel"]]}', "1 class none of the data's classes: 'eel'"),
        ('{"parts": [["ape", "bee", "cat", "dog"], ["ape"]]}', "has 'ape' in two parts"),
        ('{"parts": [["ape", "bee", "cat", "dog"], []]}', "each part a class"),
        ('{"parts": [[1]]}', "lists of names are expected"),
        ('{"part": []}', "neither one of names nor a list"),
        ('[{"0": 0, "1": 1, "2": 2, "3": 3, "80": 4}]', "part 0: class 80 of 4"),
        ('[{"0": 0, "1": 2}]', "part 0: the numbers in it are not 0 to 1"),
        ("[[1]]", "part 0: a dictionary from number to number is expected"),
    ],
)
def test_a_partition_that_does_not_fit_is_named(content, says, tmp_path):
    (tmp_path / "p.json").write_text(content)
    with pytest.raises(UsageError, match=r"p\.json: .*") as caught:
        read_partition(tmp_path / "p.json", ["ape", "bee", "cat", "dog"])
    assert says in str(caught.value)


def test_a_file_that_is_none_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"no such file; write it with python -m partition"):
        read_partition(tmp_path / "p.json")
    (tmp_path / "p.json").write_text("{")
    with pytest.raises(DataError, match=r"p\.json"):
        read_partition(tmp_path / "p.json")


def test_the_tool_writes_draws_and_converts(tmp_path, ran):
    data = write_data(tmp_path) / "lmdb/train"
    output = tmp_path / "out/cgp2.json"
    said = ran(main, data, "--parts", 2, "--output", output, "--numbered", tmp_path / "n.json")
    assert "part 1" in said.stdout
    assert output.with_suffix(".png").stat().st_size > 10_000
    made = read_partition(output, CLASSES)
    ran(main, data, "--read", tmp_path / "n.json", "--output", tmp_path / "again.json")
    assert read_partition(tmp_path / "again.json").parts == made.parts


@pytest.mark.skipif(not LISTS.exists(), reason="needs the lists of NUS-WIDE")
def test_the_labels_of_nus_wide_are_divided():
    with gzip.open(LISTS / "train.txt.gz", "rt") as file:
        labels = np.array([line.split()[1:] for line in file], np.int8)
    names = [line.split("\t")[1].strip() for line in (LISTS / "concepts81_dreamerzp.txt").read_text().splitlines()]
    made = partition(labels, names, "CGP", 5, 0)
    assert len(made.parts) == 5
    assert sorted(made.classes) == sorted(names)
    together, counts = cooccurrence(labels)
    place = {name: number for number, name in enumerate(names)}
    weights = affinity(together, counts, "CGP")
    part = np.array([next(n for n, one in enumerate(made.parts) if name in one) for name in place])
    same = part[:, None] == part[None]
    np.fill_diagonal(same, False)
    other = part[:, None] != part[None]
    assert weights[same].mean() > 1.5 * weights[other].mean()
