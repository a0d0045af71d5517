"""Lists of several labels an image: how each form is told, read and packed."""

import csv
import gzip
import io
import os
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from dataset_helpers import examples, image_bytes, packing_command, write_tree
from hypothesis import given
from hypothesis import strategies as st

from dataset import img2lmdb
from dataset.sources.files import find_listed
from dataset.sources.tagged_lists import find_list, read_tagged
from dataset.store.reader import ShardReader
from utils.errors import UsageError

REAL = Path(os.environ.get("LIMBECK_DATA", "../shared/data")) / "nuswide_lists"


def read(folder, text, classes=None, name="train_list.txt"):
    data = text if isinstance(text, bytes) else text.encode()
    (folder / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return read_tagged(folder / name, classes)


def test_labels_behind_a_path(tmp_path):
    text = "a/1 2.jpg 3 17 42\n\n./b/2.PNG 5\r\na.jpg 7.jpg\nlast.jpeg 42\t0  7 "
    listed = read(tmp_path, text)
    assert listed.keys == ["a/1 2.jpg", "b/2.PNG", "a.jpg 7.jpg", "last.jpeg"]
    assert listed.targets == [(3, 17, 42), (5,), (), (0, 7, 42)]
    assert listed.classes == tuple(map(str, range(43)))
    names = tuple(f"class {n}" for n in range(50))
    assert read(tmp_path, text, names, "train_list.txt.gz").classes == names


def test_a_value_for_each_class(tmp_path):
    listed = read(tmp_path, "a/1.jpg 0 1 1\na/2.jpg 0 0 0\na/3.jpg 1 0 0 \n")
    assert listed.targets == [(1, 2), (), (0,)]
    assert listed.classes == ("0", "1", "2")
    assert read(tmp_path, "a/1.jpg 0 1 1\n", ("x", "y", "z")).classes == ("x", "y", "z")


TABLE = "path,cat,dog,yak\na/1.jpg,1,0,-1\n\n'a/2, 3.jpg',True,,FALSE\r\na/4.jpg,-1.0,1.0,0.0\n".replace("'", '"')


@pytest.mark.parametrize("front", ["", ",", ",Unnamed: 0,"])
def test_a_table_with_a_column_a_class(tmp_path, front):
    count = front.count(",")
    lines = [("7," * count if number else front) + line for number, line in enumerate(TABLE.split("\n"))]
    lines = [line for line in lines if line.strip("7,")]
    listed = read(tmp_path, "\n".join(lines), name="train_list.csv")
    assert listed.keys == ["a/1.jpg", "a/2, 3.jpg", "a/4.jpg"]
    assert listed.classes == ("cat", "dog", "yak")
    assert listed.targets == [(0, -3), (0,), (1, -1)]
    listed = read(tmp_path, "\ufeff" + "\n".join(lines), ("yak", "cat", "dog"), "train_list.csv.gz")
    assert listed.targets == [(1, -1), (1,), (2, -2)]  # columns go by their names


@pytest.mark.parametrize(
    "text",
    [
        "a/1.jpg 3\nb/2.jpg 0\n",
        "a/1.jpg 3\nb/2.jpg\n",  # faults, which read_list names
        "a/1.jpg 3\nb/2.jpg zero\n",
        "a/photo 3 17\n",  # what is no image by its name may end in a number
        "a/1.jpg 2.jpg 17\n",
        "",
    ],
)
def test_other_lists_are_single_label(tmp_path, text):
    assert read(tmp_path, text) is None


@examples(300)
@given(st.lists(st.sets(st.integers(0, 5)), min_size=1, max_size=6))
def test_no_form_is_read_as_another(tmp_path_factory, sets):
    """Labels, values and tables of the same images mean the same, or are refused, or are single-label."""
    folder = tmp_path_factory.mktemp("lists")
    expected = [tuple(sorted(labels)) for labels in sets]
    values = [[int(label in labels) for label in range(6)] for labels in sets]
    names = tuple("abcdef")

    def lines(rows, between, header=""):
        return header + "".join(between.join([f"{n}.jpg", *map(str, row)]) + "\n" for n, row in enumerate(rows))

    assert read(folder, lines(values, " "), names).targets == expected
    table = lines(values, ",", "path," + ",".join(names) + "\n")
    assert read(folder, table, name="train_list.csv").targets == expected
    labels = lines([sorted(labels, reverse=True) for labels in sets], " ")
    if all(here == {0, 1} for here in sets):
        with pytest.raises(UsageError, match="may be two labels or a value for each of two classes"):
            read(folder, labels, names)
    else:
        listed = read(folder, labels, names)
        assert listed is None if max(map(len, sets)) < 2 else listed.targets == expected


LONG = "a/1.jpg 0 1 0 0\na/2.jpg 1 0 0 1\na/3.jpg 0 0 0 1\n"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a/1.jpg 1 2\na/2.jpg 1 3\n", "line 2 .*: the label 3 must lie in 0 to 2"),
        ("a/1.jpg 1 2\na/2.jpg -1\n", "line 2 .*: the label -1 must lie in 0 to 2"),
        ("a/1.jpg 1 2\na/2.jpg " + "9" * 5000, "line 2 .*: the label 9{20} must lie in 0 to 2"),
        ("a/1.jpg 1 2\na/2.jpg 2 2\n", "line 2 .*: the label 2 stands there twice"),
        ("a/1.jpg 1 2\na/2.jpg two\n", "line 2 .*: expected `relative/path label label ...`"),
        ("a/1.jpg 1 2\na/2 1\n", "line 2 .*: expected `relative/path label label ...`"),
        ("a/1.jpg 1 2\n./a/1.jpg 1\n", "line 2 .*: the same file stands on line 1"),
        ("a/1.jpg 1 2\n../1.jpg 1\n", "line 2 .*: the path must stay below"),
        (LONG + "a/4.jpg 1 0 0\n", "line 1 .* twice.* as many, here 4, all 0 or 1; but line 4 has 3"),
        (LONG + "a/4.jpg 1 0 2 0\n", "line 1 .* twice.*; but number 3 of line 4 is 2"),
        (LONG, r": 4 values on every line, and classes\.txt names 3 classes"),
        ("a/1.jpg 0 1\na/2.jpg 1 0\n", r"two numbers, all 0 or 1, .*: write it as train_list\.csv"),
    ],
)
def test_a_bad_line_is_named(tmp_path, text, reason):
    with pytest.raises(UsageError, match=rf"train_list\.txt.*{reason}") as caught:
        read(tmp_path, text, ("a", "b", "c"))
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("path,a,b\n1.jpg,0,1\n2.jpg,0\n", "line 3: 2 values, and the header has 3"),
        ("path,a,b\n1.jpg,0,maybe\n", r"line 2, column 3 \(b\): 'maybe' is none of 0, 1, -1"),
        ("path,a,b\n1.jpg,0,2\n", r"line 2, column 3 \(b\): '2' is none of"),
        (",path,a\n0,1.jpg,x\n", r"line 2, column 3 \(a\): 'x' is none of"),
        ("path,a,b\n,0,1\n", "line 2, column 1: expected the path of an image"),
        ("path,a,b\n1.jpg,0,1\n1.jpg,0,1\n", "line 3: the same file stands on line 2"),
        ("path,a,b\n/1.jpg,0,1\n", "line 2: the path must stay below"),
        ("path,a,a\n1.jpg,0,1\n", "line 1, column 3: 'a' is column 2 too"),
        ("path,a,\n1.jpg,0,1\n", "line 1, column 3 has no name"),
        ("1.jpg,0,1\n2.jpg,0,1\n", r"line 1: '1\.jpg' is an image, and the first line must name"),
        ("path\n1.jpg\n", "line 1: expected a header of two or more columns"),
        ("", "line 1: expected a header of two or more columns"),
        ("path,a\n", "is empty"),
        ('path,a\n"1.jpg,0\n', "line 2: unexpected end of data"),
    ],
)
def test_a_bad_table_is_named(tmp_path, text, reason):
    with pytest.raises(UsageError, match=rf"train_list\.csv.*{reason}"):
        read(tmp_path, text, name="train_list.csv")


def test_a_table_of_one_class_may_be_one_of_labels(tmp_path):
    text = "path,label\n1.jpg,0\n2.jpg,1\n"
    with pytest.raises(UsageError, match=r"'label', may be .* as train_list\.txt, .* the only class in classes\.txt"):
        read(tmp_path, text, name="train_list.csv")
    assert read(tmp_path, text, ("label",), "train_list.csv").targets == [(), (0,)]


def test_files_that_do_not_fit_are_refused(tmp_path):
    with pytest.raises(UsageError, match=r"the columns are not the classes of classes\.txt: 'cow', 'dog'$"):
        read(tmp_path, "path,cat,dog\n1.jpg,0,1\n", ("cat", "cow"), "train_list.csv")
    (tmp_path / "val_list.txt.gz").write_bytes(gzip.compress(b"a/1.jpg 1 2\n" * 99)[:-9])
    with pytest.raises(UsageError, match=r"val_list\.txt\.gz is no whole gzip file"):
        read_tagged(tmp_path / "val_list.txt.gz", None)
    (tmp_path / "train_list.txt").touch()
    with pytest.raises(UsageError, match=r"holds train_list\.txt and train_list\.csv: keep the one"):
        find_list(tmp_path, "train")
    with pytest.raises(UsageError, match=r"test_list\.txt is missing: .* whose list is there: train, val$"):
        find_listed(tmp_path, tmp_path, "test")


def test_a_list_is_packed_with_its_labels(tmp_path, monkeypatch):
    files = {f"images/{split}/{n}.jpg": image_bytes(n) for split in ("train", "val") for n in range(3)}
    write_tree(tmp_path, {**files, "lists/train_list.txt": b"2.jpg 1 0\n0.jpg\n1.jpg 2\n"})
    monkeypatch.setattr(sys, "argv", packing_command(tmp_path))
    img2lmdb.main.__wrapped__()
    reader = ShardReader(tmp_path / "lmdb/train")
    assert (reader.index.target, reader.classes) == ("multi", ("0", "1", "2"))
    assert reader.keys() == ["2.jpg", "0.jpg", "1.jpg"]
    assert reader.labels.tolist() == [[1, 1, 0], [0, 0, 0], [0, 0, 1]]
    write_tree(tmp_path, {"lists/dev_list.csv": b"path,cat,dog\nval/0.jpg,1,-1\ntrain/0.jpg,,1\n"})
    source = find_listed(tmp_path / "images", tmp_path / "lists", "dev")  # which has no folder of this name
    assert source.image(1) == files["images/train/0.jpg"]
    assert (source.target, source.classes, source.targets) == ("multi", ("cat", "dog"), [(0, -2), (1,)])


@pytest.mark.skipif(not REAL.exists(), reason=f"no lists of NUS-WIDE at {REAL}: set LIMBECK_DATA")
@pytest.mark.parametrize(
    ("name", "images", "classes", "labels"),
    [("train", 10_000, 81, 24_357), ("test", 5_000, 81, 12_156), ("coco_test80", 5_000, 80, 14_755)],
)
def test_real_lists_in_every_form(tmp_path, name, images, classes, labels):
    data = gzip.decompress((REAL / f"{name}.txt.gz").read_bytes()).decode()
    rows = [line.split(" ") for line in data.splitlines()]
    (tmp_path / "train_list.txt.gz").write_bytes((REAL / f"{name}.txt.gz").read_bytes())
    listed = find_listed(tmp_path, tmp_path, "train")
    assert (len(listed), len(listed.classes), sum(map(len, listed.targets))) == (images, classes, labels)
    assert listed.keys == [row[0] for row in rows]
    columns = np.array([row[1:] for row in rows]) == "1"
    assert Counter(label for target in listed.targets for label in target) == dict(enumerate(columns.sum(axis=0)))
    as_labels = "".join(" ".join([row[0], *map(str, np.flatnonzero(has))]) + "\n" for row, has in zip(rows, columns))
    assert read(tmp_path, as_labels, listed.classes).targets == listed.targets
    table = io.StringIO()
    csv.writer(table).writerows([["path", *listed.classes], *rows])
    assert read(tmp_path, table.getvalue(), name="train_list.csv").targets == listed.targets
