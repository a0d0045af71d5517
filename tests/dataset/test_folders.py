"""Folders as users have them: what is passed over, what is an error, and each file once."""

import os
import socket
import sys
import unicodedata

import numpy as np
import pytest
from dataset_helpers import call, image_bytes, pack_images, write_tree
from scipy.io import savemat

from dataset import mk_img_list
from dataset.sources.cifar import find_cifar
from dataset.sources.imagenet import Entry, find_classes, find_images
from dataset.sources.walk import folders_in
from dataset.store.folder import ImageFolder
from dataset.store.reader import ShardReader
from utils.errors import UsageError

OF_SYSTEMS = (
    *(".ipynb_checkpoints", "@eaDir", "__MACOSX", "#recycle", "$RECYCLE.BIN", "lost+found", ".Trash-0"),
    *("System Volume Information", "@EADIR", ".git", "__pycache__", "@Recycle"),
)
FILES_OF_SYSTEMS = ("._1.jpg", ".DS_Store", "Thumbs.db", "desktop.ini", ".hidden.png")


def tree(root, **more):
    """Two classes of two images in train and val, and more files."""
    files = {f"{split}/{name}/{number}.jpg": b"x" for split in ("train", "val") for name in "ab" for number in (1, 2)}
    return write_tree(root, {**files, **more})


def paths(entries):
    return [entry.path for entry in entries]


ALL = ["a/1.jpg", "a/2.jpg", "b/1.jpg", "b/2.jpg"]


@pytest.mark.parametrize("place", ["", "a/"])
@pytest.mark.parametrize("name", [*OF_SYSTEMS, *FILES_OF_SYSTEMS])
def test_what_systems_leave_is_passed_over_and_counted(tmp_path, name, place):
    tree(tmp_path)
    for split in ("train", "val"):
        file = tmp_path / split / place / name
        file = file if name in FILES_OF_SYSTEMS else file / "3.jpg"
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(b"x")
        assert find_classes(tmp_path) == ("a", "b")
        entries, remarks = find_images(tmp_path / split, ("a", "b"))
        assert paths(entries) == ALL
        assert remarks == [f"1 hidden or system entry passed over, such as {place}{name}"]
    samples = ImageFolder(tmp_path, "val")
    assert (samples.classes, len(samples)) == (("a", "b"), 4)
    assert samples.remarks == [f"{tmp_path / 'val'}: {remarks[0]}"]


def test_class_folders_of_small_images_are_read_the_same_way(tmp_path, capsys):
    tree(tmp_path, **{"train/@eaDir/1.jpg": b"x", "train/a/.3.jpg": b"x"})
    images = find_cifar(tmp_path, "train")
    assert (images.classes, images.keys) == (("a", "b"), ALL)
    assert "train: 2 hidden or system entries passed over" in capsys.readouterr().out
    (tmp_path / "val").rename(tmp_path / "test")
    (tmp_path / "test/c").mkdir()
    with pytest.raises(UsageError, match=r"test has 1 class folder that is not among the classes of train: 'c'"):
        find_cifar(tmp_path, "val")


def unreadable(monkeypatch, folder):
    """As a folder of somebody else, or of a network that fails, shows itself; for root may read everything."""
    scandir = os.scandir

    def scan(path):
        if folder.samefile(path):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", scan)


@pytest.mark.parametrize("folder", ["train", "train/b", "val/a", "val/a/deep"])
def test_a_folder_that_cannot_be_read_is_an_error(tmp_path, monkeypatch, folder):
    tree(tmp_path, **{"val/a/deep/3.jpg": b"x"})
    unreadable(monkeypatch, tmp_path / folder)
    for read in (lambda: make_lists_here(tmp_path, monkeypatch), lambda: ImageFolder(tmp_path, folder.split("/")[0])):
        with pytest.raises(UsageError, match=rf"{folder} cannot be read: Permission denied"):
            read()
    assert not (tmp_path / "lists").exists()


def make_lists_here(root, monkeypatch, *words):
    """The tool in this process."""
    command = ["mk_img_list.py", "--image_path", str(root), "--output_path", str(root / "lists"), *words]
    monkeypatch.setattr(sys, "argv", command)
    mk_img_list.main.__wrapped__()


LINKS = {  # link: where it leads; what is found; what is remarked
    "to a sibling": ({"a/3.jpg": "1.jpg"}, ALL, "again a/3.jpg"),
    "to another class": ({"b/3.jpg": "../a/1.jpg"}, ALL, "again b/3.jpg"),
    "to a class": ({"c": "a"}, ALL, "again c"),
    "to the folder itself": ({"a/loop": "."}, ALL, "again a/loop"),
    "to the split": ({"a/loop": ".."}, ALL, "again a/loop"),
    "to what is above": ({"a/loop": "../.."}, ALL, "again a/loop"),
    "out, a file": ({"a/3.jpg": "../../pool/x.jpg"}, sorted([*ALL, "a/3.jpg"]), "outside a/3.jpg"),
    "out, a class": ({"c": "../pool"}, [*ALL, "c/deep/y.jpg", "c/x.jpg"], "outside c"),
    "out, twice": ({"c": "../pool", "a/d": "../../pool"}, sorted([*ALL, "a/d/deep/y.jpg", "a/d/x.jpg"]), "again c"),
    "a file and then its folder": (
        {"a/3.jpg": "../../pool/x.jpg", "c": "../pool"},
        sorted([*ALL, "a/3.jpg", "c/deep/y.jpg"]),
        "again c/x.jpg",
    ),
    "a cycle outside": ({"c": "../pool", "../pool/back": "."}, [*ALL, "c/deep/y.jpg", "c/x.jpg"], "again c/back"),
}


@pytest.mark.parametrize("case", LINKS)
def test_each_file_is_found_once_whatever_links_there_are(tmp_path, case):
    links, expected, remark = LINKS[case]
    tree(tmp_path, **{"pool/x.jpg": b"x", "pool/deep/y.jpg": b"x"})
    for name, goal in links.items():
        (tmp_path / "train" / name).symlink_to(goal)
    classes = find_classes(tmp_path)
    assert classes == (("a", "b", "c") if "c" in links else ("a", "b"))
    entries, remarks = find_images(tmp_path / "train", classes)
    assert paths(entries) == expected
    kind, name = remark.split()
    words = {"again": "to what is listed already passed over, such as ", "outside": "out of the folder, such as "}
    assert any(words[kind] + name in line for line in remarks)


@pytest.mark.parametrize("link", ["a/3.jpg", "a/deep", "c", "notes.txt"])
@pytest.mark.parametrize("goal", ["nowhere", "itself"])
def test_a_link_that_leads_nowhere_is_an_error(tmp_path, link, goal):
    tree(tmp_path)
    (tmp_path / "train" / link).symlink_to((tmp_path / "train" / link).name if goal == "itself" else goal)
    with pytest.raises(UsageError, match=rf"{link} is a link to .*; mend or delete the link"):
        ImageFolder(tmp_path, "train")
    (tmp_path / "train" / link).rename(tmp_path / "train/.#lock")  # as Emacs leaves them
    assert len(ImageFolder(tmp_path, "train")) == 4


def test_a_split_that_is_a_link_to_nowhere_is_an_error(tmp_path, monkeypatch):
    tree(tmp_path)
    (tmp_path / "val").rename(tmp_path / "away")
    (tmp_path / "val").symlink_to("nowhere")
    with pytest.raises(UsageError, match=r"val.* cannot be read"):
        make_lists_here(tmp_path, monkeypatch)


def test_only_regular_files_are_images(tmp_path):
    tree(tmp_path)
    os.mkfifo(tmp_path / "train/a/3.jpg")
    (tmp_path / "train/a/4.jpg").symlink_to("3.jpg")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "train/b/5.jpg"))
        entries, remarks = find_images(tmp_path / "train", ("a", "b"))
    assert paths(entries) == ALL
    assert remarks == ["3 pipes, sockets or devices passed over, such as a/3.jpg"]


def test_letters_that_look_alike_are_spelled(tmp_path):
    nfc, nfd = (unicodedata.normalize(form, "é") for form in ("NFC", "NFD"))
    write_tree(tmp_path, {f"train/{nfc}/1.jpg": b"x", f"val/{nfd}/1.jpg": b"x"})
    with pytest.raises(UsageError) as caught:
        find_images(tmp_path / "val", find_classes(tmp_path))
    assert r"('e\u0301')" in str(caught.value)
    assert r"('\xe9'), the same letters in another form of Unicode (NFC, NFD)" in str(caught.value)
    (tmp_path / "train" / nfd).mkdir()
    with pytest.raises(UsageError, match=r"train: the folders .* are the same letters \(NFC and NFD\)"):
        find_classes(tmp_path)


def test_folders_of_both_kinds_are_sorted(tmp_path):
    tree(tmp_path)
    (tmp_path / "train/aa").symlink_to("b")
    assert folders_in(tmp_path / "train") == ["a", "aa", "b"]


FLAT = {f"ILSVRC2012_val_0000000{number}.JPEG": image_bytes(number) for number in (1, 2, 3)}
CSV = "ImageId,PredictionString\nILSVRC2012_val_00000003,b 85 1 499 272 \nILSVRC2012_val_00000001,b 1 2 3 4 a 1 2 3 4\n"
CSV += "ILSVRC2012_val_00000002,a 1 2 3 4\nILSVRC2012_val_00000009,b 1 2 3 4\n"
PLAIN = "ILSVRC2012_val_00000001.JPEG,b\r\nILSVRC2012_val_00000003.JPEG,b\r\nILSVRC2012_val_00000002.JPEG,a\r\n"


def flat(root, **more):
    """Class folders a and b in train, three images in val, and the devkit, in which a is 2 and b is 1."""
    tree(root, **more)
    for file in (root / "val").glob("*/*"):
        file.unlink()
    for folder in (root / "val").iterdir():
        folder.rmdir()
    write_tree(root / "val", FLAT)
    (root / "labels.txt").write_text("1\n2\n1\n")
    kinds = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("num_children", "O")]
    savemat(root / "meta.mat", {"synsets": np.array([(1, "b", 0), (2, "a", 0), (3, "parent", 2)], kinds)})
    return root


def test_a_split_without_class_folders_is_refused_with_what_to_do(tmp_path, monkeypatch):
    flat(tmp_path)
    for read in (lambda: make_lists_here(tmp_path, monkeypatch), lambda: ImageFolder(tmp_path, "val")):
        with pytest.raises(UsageError, match=r"val holds 3 images and no class folders: sort .* --val_labels"):
            read()
    assert not (tmp_path / "lists").exists()
    write_tree(tmp_path, {"val/a/1.jpg": b"x"})
    remark = "3 images outside of class folders passed over, such as ILSVRC2012_val_00000001.JPEG"
    assert f"{tmp_path / 'val'}: {remark}" in ImageFolder(tmp_path, "val").remarks
    with pytest.raises(UsageError, match=r"val has 1 folder \('a'\): it is for images that lie in one folder"):
        make_lists_here(tmp_path, monkeypatch, "--val_labels", str(tmp_path / "labels.txt"))


def test_class_folders_that_lie_one_deeper_are_no_single_class(tmp_path, monkeypatch):
    """As archives unpack them: `train/train/cat/1.jpg`."""
    files = {f"{split}/{split}/{name}/1.jpg": b"x" for split in ("train", "val") for name in ("cat", "dog")}
    write_tree(tmp_path, files)
    for read in (lambda: make_lists_here(tmp_path, monkeypatch), lambda: ImageFolder(tmp_path, "train")):
        with pytest.raises(UsageError, match=r"one folder, 'train', and that holds 'cat', 'dog': .* move them up into"):
            read()
    assert find_classes(tmp_path, ("train",)) == ("train",)
    write_tree(tmp_path, {"train/train/1.jpg": b"x"})
    assert find_classes(tmp_path) == ("train",)


@pytest.mark.parametrize("text", ["1\n2\n1\n", CSV, PLAIN, "file,label\n" + PLAIN])
def test_flat_images_are_listed_by_a_file_of_labels(tmp_path, monkeypatch, text):
    flat(tmp_path)
    (tmp_path / "labels.txt").write_bytes(text.encode())
    make_lists_here(tmp_path, monkeypatch, "--val_labels", str(tmp_path / "labels.txt"))
    expected = [Entry(name, label) for name, label in zip(sorted(FLAT), (1, 0, 1))]
    lines = (tmp_path / "lists/val_list.txt").read_text().splitlines()
    assert sorted(lines) == [f"{entry.path} {entry.label}" for entry in expected]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("1\n2\n", r"no label for 1 image of .*val, such as ILSVRC2012_val_00000003\.JPEG"),
        ("1\n2\n9\n", r"line 3: meta\.mat beside it has no ILSVRC2012_ID 9"),
        ("1\n2\n3\n", "names 1 class that train lacks: 'parent'"),
        ("", "no label for 3 images"),
        (PLAIN.replace(",a", ",c"), "line 3: 'c' is not a class folder of train"),
        (PLAIN + PLAIN, "line 4: .*_00000001.JPEG stands there a second time"),
        (PLAIN.replace(",a", ""), "line 3: expected `file,class`"),
        (PLAIN.replace("3.JPEG", "4.JPEG"), "no label for 1 image"),
        (PLAIN + '"', r"line \d: "),
    ],
)
def test_labels_that_do_not_fit_are_refused(tmp_path, monkeypatch, text, reason):
    flat(tmp_path)
    (tmp_path / "labels.txt").write_bytes(text.encode())
    with pytest.raises(UsageError, match=reason):
        make_lists_here(tmp_path, monkeypatch, "--val_labels", str(tmp_path / "labels.txt"))


def test_the_devkits_numbers_need_its_names(tmp_path, monkeypatch):
    flat(tmp_path)
    words = ("--val_labels", str(tmp_path / "labels.txt"))
    (tmp_path / "val/other.jpg").touch()
    with pytest.raises(UsageError, match=r"not for other\.jpg"):
        make_lists_here(tmp_path, monkeypatch, *words)
    (tmp_path / "meta.mat").write_bytes(b"no such format")
    with pytest.raises(UsageError, match=r"meta\.mat is not the devkit's"):
        make_lists_here(tmp_path, monkeypatch, *words)
    (tmp_path / "meta.mat").unlink()
    with pytest.raises(UsageError, match=r"meta\.mat is missing\. The devkit's numbers are not the positions"):
        make_lists_here(tmp_path, monkeypatch, *words)


def test_flat_images_are_packed_where_they_lie(tmp_path):
    flat(tmp_path / "images")
    words = ("--image_path", str(tmp_path / "images"), "--output_path", str(tmp_path / "lists"))
    call("dataset/mk_img_list.py", *words, "--val_labels", str(tmp_path / "images/labels.txt"))
    for classes in (("a", "b"), ("0", "1")):
        pack_images(tmp_path, split="val", output=classes[0])
        reader = ShardReader(tmp_path / classes[0] / "val")
        assert reader.classes == classes
        assert dict(zip(reader.keys(), reader.labels.tolist())) == dict(zip(sorted(FLAT), (1, 0, 1)))
        (tmp_path / "lists/classes.txt").unlink(missing_ok=True)  # then nothing names them
