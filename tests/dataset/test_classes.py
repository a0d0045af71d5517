"""Train and val mean the same by their labels, wherever they are read from."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
from dataset_helpers import image_bytes, image_tree
from splits import records, write_split, write_wsld

from dataset.classes import check_apart, check_same_classes
from dataset.store.folder import ImageFolder
from dataset.store.reader import ShardReader
from dataset.store.wsld import WsldReader
from utils.errors import UsageError


def packed(root, name, classes, labels):
    """LMDB shards with an image of each of the ``labels``."""
    return ShardReader(write_split(root / name, records(len(labels), target=labels.__getitem__), classes=classes))


def wsld(root, name, classes, labels):
    """WSLD's format with an image of each of the ``labels``, which knows the classes of no others."""
    files = {f"{classes[label]}/{number}.jpg": (b"x", label) for number, label in enumerate(labels)}
    return WsldReader(write_wsld(root / name, files))


ABC = ("a", "b", "c")
CASES = {  # classes and labels of train; of val; what is wrong
    "the same": (ABC, [0, 1, 2], ABC, [2, 1, 0], None),
    "val has fewer images": (ABC, [0, 1, 2], ABC, [1], None),
    "val has a beginning": (ABC, [0, 1, 2], ABC[:2], [0, 1], None),
    "another order": (ABC, [0, 1, 2], ("b", "a", "c"), [0, 1, 2], "label 0 is 'a' in train and 'b' in val"),
    "another last one": (ABC, [0, 1, 2], ("a", "b", "d"), [0, 1, 2], "label 2 is 'c' in train and 'd' in val"),
    "val begins later": (("0", "1", "2"), [0, 1, 2], ("1", "2"), [0, 1], "label 0 is '0' in train and '1' in val"),
    "one more": (ABC, [0, 1, 2], (*ABC, "d"), [0, 3], "label 3 is 'd' in val, and train has labels 0 to 2 only"),
    "letters that look alike": (("é",), [0], ("e\u0301",), [0], r"'\\xe9'\) in train and .*'e\\u0301'\) in val"),
}


@pytest.mark.parametrize("make", [packed, wsld])
@pytest.mark.parametrize("case", CASES)
def test_the_first_label_that_differs_is_named(tmp_path, make, case):
    ours, our_labels, theirs, their_labels, problem = CASES[case]
    train, val = make(tmp_path, "train", ours, our_labels), make(tmp_path, "val", theirs, their_labels)
    if problem is None:
        check_same_classes(train, val)
    else:
        with pytest.raises(UsageError, match=problem):
            check_same_classes(train, val)


def test_a_class_that_nothing_names_agrees_with_any(tmp_path):
    train = packed(tmp_path, "train", ABC, [0, 1, 2])
    val = wsld(tmp_path, "val", ABC, [0, 2])
    assert val.classes == ("a", "1", "c")
    check_same_classes(train, val)
    numbered = packed(tmp_path, "numbered", ("a", "1"), [0, 1])  # which has images: it is a name
    with pytest.raises(UsageError, match="label 1 is 'b' in train and '1' in val"):
        check_same_classes(train, numbered)


def test_one_split_in_the_place_of_another_is_noticed(tmp_path):
    train, val = packed(tmp_path, "train", ABC, [0, 1, 2]), packed(tmp_path, "val", ABC, [0, 1])
    assert check_apart(train, val) == [f"warning: {tmp_path}/val was packed as train"]
    val.index = replace(val.index, split="val")
    assert check_apart(train, val) == check_apart(train, train) == []
    shutil.copytree(tmp_path / "train", tmp_path / "copy")
    with pytest.raises(UsageError, match=r"copy/00000\.lmdb is .*train/00000\.lmdb: validation would be on"):
        check_apart(train, ShardReader(tmp_path / "copy"))


def test_several_labels_an_image(tmp_path):
    splits = [
        ShardReader(write_split(tmp_path / name, records(1, target=lambda _: (0, 2)), target="multi", classes=classes))
        for name, classes in (("train", ABC), ("val", ("a", "1", "d")))
    ]
    assert splits[0].labels.shape == (1, 3)
    check_same_classes(splits[0], splits[0])
    with pytest.raises(UsageError, match="label 2 is 'c' in train and 'd' in val"):
        check_same_classes(*splits)


def test_shards_and_folders_agree(tmp_path):
    image_tree(tmp_path)
    image_tree(tmp_path, split="val")
    folder = ImageFolder(tmp_path, "val")
    check_same_classes(packed(tmp_path, "shards", ("class0", "class1"), [0, 1]), folder)
    with pytest.raises(UsageError, match="label 1 is 'other' in train and 'class1' in val"):
        check_same_classes(packed(tmp_path, "others", ("class0", "other"), [0, 1]), folder)


def test_a_run_refuses_them(tmp_path, train):
    for split, classes in (("train", ("a", "b")), ("val", ("b", "a"))):
        images = {f"{name}/1.jpg": (image_bytes(1, 16, 16), label) for label, name in enumerate(classes)}
        write_wsld(tmp_path / split, images)
    words = (f"data.data_path={tmp_path}", f"train_params.output_path={tmp_path}", "data.num_workers=0")
    error = train("--cfg", "configs/digits.py", *words, code=2).stderr
    assert "UsageError: label 0 is 'a' in train and 'b' in val" in error
    assert not np.any([path.suffix == ".pt" for path in tmp_path.rglob("*")])
