"""Lists of images: what mk_img_list.py writes and what read_list accepts."""

import os
import re

import pytest
from dataset_helpers import call, image_bytes, image_tree, make_lists, write_tree

from dataset.sources.files import find_listed
from dataset.sources.imagenet import Entry, find_classes, find_images, list_bytes, read_classes, read_list
from utils.errors import UsageError


def listed(root, split="train"):
    return (root / "lists" / f"{split}_list.txt").read_bytes()


def test_labels_are_positions_among_sorted_train_folders(tmp_path):
    files = {f"train/{name}/{number}.JPEG": b"x" for name in ("n2", "n10", "N3") for number in ("b", "a", "10", "9")}
    write_tree(tmp_path / "images", {**files, "val/n2/z.jpeg": b"x", "val/N3/y.PNG": b"x"})
    output = make_lists(tmp_path).stdout
    assert (tmp_path / "lists/classes.txt").read_text() == "N3\nn10\nn2\n"
    assert listed(tmp_path).decode().splitlines() == [
        f"{name}/{number}.JPEG {label}"
        for label, name in enumerate(("N3", "n10", "n2"))
        for number in ("10", "9", "a", "b")
    ]
    assert listed(tmp_path, "val") == b"N3/y.PNG 0\nn2/z.jpeg 2\n"  # the label of train, though val has two folders
    assert "12 images, 3 classes" in output
    assert "val: 1 class has no images and keeps its label: n10" in output


def test_a_file_as_the_output_folder_is_refused(tmp_path):
    image_tree(tmp_path / "images")
    (tmp_path / "lists").touch()
    assert "UsageError: --output_path: " in make_lists(tmp_path, code=2).stderr


def test_running_twice_gives_the_same_bytes(tmp_path):
    image_tree(tmp_path / "images")
    make_lists(tmp_path)
    before = listed(tmp_path)
    make_lists(tmp_path)
    assert listed(tmp_path) == before  # not appended
    assert sorted(path.name for path in (tmp_path / "lists").iterdir()) == ["classes.txt", "train_list.txt"]


def test_a_validation_class_that_train_lacks_is_refused(tmp_path):
    write_tree(tmp_path / "images", {"train/a/1.jpg": b"x", "val/a/1.jpg": b"x", "val/stranger/1.jpg": b"x"})
    error = make_lists(tmp_path, code=2).stderr
    assert "val has 1 class folder that is not among the classes of train: 'stranger'" in error
    assert "Traceback" not in error
    assert not (tmp_path / "lists").exists()


@pytest.mark.parametrize("files", [{"readme": b""}, {"val/a/1.jpg": b"x"}, {"train/1.jpg": b"x"}])
def test_no_class_folders_of_train_is_refused(tmp_path, files):
    write_tree(tmp_path / "images", files)
    assert "train" in make_lists(tmp_path, code=2).stderr


def test_an_empty_class_keeps_its_label(tmp_path):
    write_tree(tmp_path / "images", {"train/a/1.jpg": b"x", "train/c/1.jpg": b"x", "train/b/notes.txt": b"x"})
    output = make_lists(tmp_path).stdout
    assert listed(tmp_path) == b"a/1.jpg 0\nc/1.jpg 2\n"
    assert "1 file passed over, no image by the extension, such as b/notes.txt" in output
    assert "1 class has no images and keeps its label: b" in output


def test_given_classes_keep_their_labels(tmp_path):
    write_tree(tmp_path / "images", {"train/c/1.jpg": b"x", "train/a/1.jpg": b"x"})
    (tmp_path / "all.txt").write_text("a\nb\nc\nd\n")
    words = ["--image_path", str(tmp_path / "images"), "--output_path", str(tmp_path / "lists")]
    call("dataset/mk_img_list.py", *words, "--class_list", str(tmp_path / "all.txt"))
    assert listed(tmp_path) == b"a/1.jpg 0\nc/1.jpg 2\n"
    (tmp_path / "all.txt").write_text("a\nb\n")
    error = call("dataset/mk_img_list.py", *words, "--class_list", str(tmp_path / "all.txt"), code=2).stderr
    assert "1 class folder that is not listed: 'c'" in error


def test_a_subset_of_imagenet_keeps_the_labels_of_its_1000_classes(tmp_path):
    write_tree(tmp_path / "images", {"train/n15075141/1.jpg": b"x", "train/n01443537/1.jpg": b"x"})
    words = ["--image_path", str(tmp_path / "images"), "--output_path", str(tmp_path / "lists")]
    call("dataset/mk_img_list.py", *words, "--class_list", "imagenet")
    assert listed(tmp_path) == b"n01443537/1.jpg 1\nn15075141/1.jpg 999\n"
    assert len(read_classes(tmp_path / "lists/classes.txt")) == 1000


def test_names_that_are_not_utf8_keep_their_bytes(tmp_path):
    name = os.fsdecode(b"caf\xe9/na\xefve \xff.JPEG")
    try:
        write_tree(tmp_path / "images", {f"train/{name}": b"x", "train/ü ü/漢字.jpg": b"x"})
    except OSError:
        pytest.skip("this file system takes only names in UTF-8")
    make_lists(tmp_path)
    assert listed(tmp_path) == b"caf\xe9/na\xefve \xff.JPEG 0\n" + "ü ü/漢字.jpg 1\n".encode()
    classes = read_classes(tmp_path / "lists/classes.txt")
    assert classes == find_classes(tmp_path / "images") == (os.fsdecode(b"caf\xe9"), "ü ü")
    entries = read_list(tmp_path / "lists/train_list.txt", classes)
    assert entries == [Entry(name, 0), Entry("ü ü/漢字.jpg", 1)]
    assert all((tmp_path / "images/train" / entry.path).exists() for entry in entries)


@pytest.mark.parametrize("name", ["a/line\nbreak.jpg", "a/return\rbreak.jpg", "line\nbreak/1.jpg"])
def test_a_line_break_in_a_name_is_refused(tmp_path, name):
    write_tree(tmp_path / "images", {"train/a/1.jpg": b"x", f"train/{name}": b"x"})
    done = make_lists(tmp_path, code=2)
    assert "line break" in done.stderr
    assert re.search(r"(line|return)\\[nr]break", done.stderr)
    assert not (tmp_path / "lists/train_list.txt").exists()


def test_images_in_deeper_folders_and_links_are_found(tmp_path):
    write_tree(tmp_path, {"train/a/deep/2.jpg": b"x", "train/a/1.jpg": b"x", "elsewhere/3.jpg": b"x"})
    (tmp_path / "train/a/link").symlink_to(tmp_path / "elsewhere")
    entries, remarks = find_images(tmp_path / "train", ("a",))
    assert [entry.path for entry in entries] == ["a/1.jpg", "a/deep/2.jpg", "a/link/3.jpg"]
    assert remarks == ["1 link leads out of the folder, such as a/link"]


def read(tmp_path, data, classes=("a", "b", "c")):
    (tmp_path / "list.txt").write_bytes(data)
    return read_list(tmp_path / "list.txt", classes)


def test_a_list_comes_back_as_it_was_written(tmp_path):
    entries = [Entry("a/1 2.jpg", 0), Entry(os.fsdecode(b"b/\xff.jpg"), 1), Entry("c/x..y/...jpg", 2)]
    assert read(tmp_path, list_bytes(entries)) == entries


@pytest.mark.parametrize(
    "data",
    [
        b"a/1.jpg 0\nb/1.jpg 1",
        b"a/1.jpg 0\r\nb/1.jpg 1\r\n",
        b"\xef\xbb\xbfa/1.jpg 0\nb/1.jpg 1\n",
        b"\na/1.jpg 0\n\n  \nb/1.jpg 1\n\n",
    ],
    ids=["no last line break", "CRLF", "byte order mark", "blank lines"],
)
def test_lists_of_other_editors_are_read(tmp_path, data):
    assert read(tmp_path, data) == [Entry("a/1.jpg", 0), Entry("b/1.jpg", 1)]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"../secret.jpg 0", "stay below"),
        (b"a/../../secret.jpg 0", "stay below"),
        (b"/etc/secret.jpg 0", "stay below"),
        (b"a/\0.jpg 0", "stay below"),
        (b"a/2.jpg", "expected `relative/path label`"),
        (b"a/2.jpg zero", "expected `relative/path label`"),
        (b"a/2.jpg\t0", "expected `relative/path label`"),
        (b"a/2.jpg 1.0", "expected `relative/path label`"),
        (b"a/2.jpg -", "expected `relative/path label`"),
        (b"a/2.jpg --1", "expected `relative/path label`"),
        ("a/2.jpg ²".encode(), "expected `relative/path label`"),
        (b" 0", "expected `relative/path label`"),
        (b"a/2.jpg -1", "must lie in 0 to 2"),
        (b"a/2.jpg 3", "must lie in 0 to 2"),
        (b"a/2.jpg " + b"9" * 5000, "must lie in 0 to 2"),
        (b"a/1.jpg 1", "stands on line 1"),
        (b"a/2.jpg 1", r"a has label 0 in classes\.txt: list the images again"),
        (b"./a/1.jpg 0", "stands on line 1"),
        (b"a//./1.jpg 0", "stands on line 1"),
    ],
)
def test_a_bad_line_is_named(tmp_path, line, reason):
    with pytest.raises(UsageError, match=reason) as caught:
        read(tmp_path, b"a/1.jpg 0\n" + line + b"\nb/1.jpg 1\n")
    assert "list.txt, line 2 (" in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("data", "names", "said"),
    [
        (b"a/1.jpg 1\nb/1.jpg 2\n", None, "train_list.txt: 1 of 3 classes without an image, .* count from 0: 0\n"),
        (b"a/1.jpg 0\nb/1.jpg 3\n", None, "2 of 4 classes without an image, .* count from 0: 1, 2\n"),
        (b"a/1.jpg 1\n", b"b\na\nc\n", "2 of 3 classes without an image, .* count from 0: b, c\n"),
        (b"a/1.jpg 0\nb/1.jpg 1\n", None, ""),
        (b"a/1.jpg\n", b"a\nb\n", ""),
    ],
)
def test_classes_without_an_image_are_printed(tmp_path, capsys, data, names, said):
    """As those of lists whose labels count from 1."""
    write_tree(tmp_path, {"train_list.txt": data, **({"classes.txt": names} if names else {})})
    find_listed(tmp_path, tmp_path, "train")
    assert re.fullmatch(f".*{said}", capsys.readouterr().out)


def test_labels_without_class_names_have_a_limit(tmp_path):
    assert read(tmp_path, b"a/1.jpg 21841\n", None) == [Entry("a/1.jpg", 21841)]
    with pytest.raises(UsageError, match=r"line 1 .*must lie in 0 to"):
        read(tmp_path, b"a/1.jpg 2000000000\n", None)  # as many class names would fill the memory


@pytest.mark.parametrize("data", [b"", b"\n\n", b"\xef\xbb\xbf"])
def test_an_empty_list_is_refused(tmp_path, data):
    with pytest.raises(UsageError, match=r"list\.txt is empty"):
        read(tmp_path, data)


def test_missing_files_are_named(tmp_path):
    with pytest.raises(UsageError, match=r"val_list\.txt is missing: write it with"):
        read_list(tmp_path / "val_list.txt", None)
    for split in ("train", "val"):
        (tmp_path / f"{split}_list.txt").touch()
    with pytest.raises(UsageError, match=r"tain_list\.txt is missing: .* whose list is there: train, val$"):
        read_list(tmp_path / "tain_list.txt", None)
    with pytest.raises(UsageError, match=r"classes\.txt: No such file"):
        read_classes(tmp_path / "classes.txt")


def test_a_class_named_twice_is_refused(tmp_path):
    (tmp_path / "classes.txt").write_text("a\nb\na\n")
    with pytest.raises(UsageError, match="line 3: 'a' stands on line 1"):
        read_classes(tmp_path / "classes.txt")


@pytest.mark.parametrize("text", ["a\nb c\n", "a\nb c", "a\r\nb c\r\n", "\ufeffa\nb c\n\n \n"])
def test_classes_of_other_editors_are_read(tmp_path, text):
    (tmp_path / "classes.txt").write_text(text, encoding="utf-8", newline="")
    assert read_classes(tmp_path / "classes.txt") == ("a", "b c")


@pytest.mark.parametrize(("text", "reason"), [("a\n\nb\n", "line 2 is empty"), ("", "is empty"), ("\n", "is empty")])
def test_an_empty_line_is_no_class(tmp_path, text, reason):
    (tmp_path / "classes.txt").write_text(text)
    with pytest.raises(UsageError, match=reason):
        read_classes(tmp_path / "classes.txt")


def test_numbers_that_sort_as_text_are_reported(tmp_path):
    write_tree(tmp_path / "images/train", {f"{number}/a.JPEG": image_bytes(number) for number in (1, 2, 10)})
    output = make_lists(tmp_path).stdout
    assert "class folders are sorted as text, not as numbers: 1, 10, 2" in output
    (tmp_path / "images/train/10").rename(tmp_path / "images/train/3")
    assert "sorted as text" not in make_lists(tmp_path).stdout
