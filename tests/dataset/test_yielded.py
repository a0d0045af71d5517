"""source2lmdb.py: what a function of one's own yields, with all that packing tools can do."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from dataset_helpers import image_bytes, pack_in_this_process, pixels, shard_bytes, write_tree
from small_functions import MODULE

import dataset.source2lmdb as tool
from dataset.jpeg.decode import decode
from dataset.jpeg.header import BadImage
from dataset.jpeg.raw import raw_pixels
from dataset.sources.functions import Yielding
from dataset.sources.iterated import find_yielded
from dataset.store.reader import ShardReader
from dataset.store.record import Boxes


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """my_records.py in the current folder."""
    images = {f"{number}.jpg": image_bytes(number) for number in range(9)}
    write_tree(tmp_path, {**images, "1.bin": b"junk", "my_records.py": MODULE.encode()})
    np.save(tmp_path / "pixels.npy", pixels(77))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*sys.path])
    yield tmp_path
    sys.modules.pop("my_records", None)


@pytest.fixture
def pack(mine, monkeypatch, capfd):
    """source2lmdb.py in this process: the reader of what it packed, or what it printed where it ended with a code."""
    pack_in_this_process(monkeypatch)

    def call(name, *words, split="train", code=0, read=ShardReader):
        command = [f"my_records:{name}", "--output_path", str(mine / "lmdb"), "--split", split, "--num_workers", "1"]
        monkeypatch.setattr("sys.argv", ["source2lmdb.py", *command, *words])
        ended = 0
        try:
            tool.main()
        except SystemExit as end:
            ended = end.code
        printed = capfd.readouterr()
        assert ended == code, printed.err
        assert "Traceback" not in printed.err
        return printed.err if code else printed.out if read is None else read(mine / "lmdb" / split)

    return call


def test_paths_and_bytes_are_packed_with_labels_by_name(pack, mine):
    train = pack("files", "--shard_mb", "0", "name=x")
    assert train.classes == ("cat", "cow", "dog")
    assert train.keys() == [f"x{number}" for number in range(9)]
    assert train.labels.tolist() == [0, 2, 1] * 3
    for number in (3, 4):
        assert np.array_equal(decode(train.read(number).image), decode(image_bytes(number)))
    assert not (mine / "lmdb/train/records/images.bin").exists()  # no image lies there twice
    val = pack("few", split="val")  # which has no cat
    assert val.classes == train.classes
    assert val.labels.tolist() == [2, 1] * 3
    before = shard_bytes(mine / "lmdb/train")
    again = pack("files", "--shard_mb", "0", "name=x")  # verifies
    assert shard_bytes(again.folder) == before
    (again.folder / "00003.lmdb").unlink()  # of an image that was kept as bytes: the function is asked again
    pack("files", "--shard_mb", "0", "name=x")
    assert shard_bytes(again.folder) == before


def test_parts_and_shuffling_are_those_of_all_tools(pack, mine):
    whole = pack("files", "--shuffle", "--shard_mb", "0", split="whole")
    assert whole.keys() != sorted(whole.keys())
    words = ("--shuffle", "--shard_mb", "0")
    for part in ("2/2", "1/2"):
        pack_part(mine, *words, "--part", part)
    parts = pack("files", *words, split="parts")
    assert parts.keys() == whole.keys()
    names = [f"{number:05d}.lmdb" for number in range(9)]
    assert [(parts.folder / one).read_bytes() for one in names] == [(whole.folder / one).read_bytes() for one in names]


def pack_part(mine, *words, name="files", split="parts", code=0):
    command = [f"my_records:{name}", "--output_path", str(mine / "lmdb"), "--split", split, "--num_workers", "1"]
    script = [sys.executable, str(ROOT / "dataset/source2lmdb.py"), *command, *words]
    done = subprocess.run(script, cwd=mine, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    return done


def test_a_kill_while_records_are_read_loses_nothing(pack, mine):
    write_tree(mine, {"bomb": b""})
    for number in range(9, 600):
        os.link(mine / f"{number % 9}.jpg", mine / f"{number}.jpg")
    pack_part(mine, name="slow", split="train", code=-signal.SIGKILL)
    (mine / "bomb").unlink()
    resumed = pack("slow")
    assert resumed.keys() == [f"a{number}" for number in range(600)]
    for number in (0, 255, 257, 599):
        assert np.array_equal(decode(resumed.read(number).image), decode(image_bytes(number % 9)))


def mend(mine, old, new):
    """Change the module, as a user does who then runs the same command."""
    module = mine / "my_records.py"
    assert old in module.read_text()
    module.write_text(module.read_text().replace(old, new))
    sys.modules.pop("my_records", None)


def test_a_function_that_is_mended_is_asked_from_its_beginning(pack, mine):
    assert "record 7 (from 0): " in (printed := pack("mistaken", code=2))
    assert "raised ValueError: boom second\n" in printed
    mend(mine, "raise ValueError", "ValueError")
    assert "record 0 (from 0): its label 'Dog' is none of the 2 classes" in pack("mistaken", code=2)
    mend(mine, '("cat", "Dog")[number % 2 ^ 1]', '("cat", "dog")[number % 2]')
    assert pack("mistaken").labels.tolist() == [0, 1] * 4


def test_an_image_that_the_function_mends_goes_where_the_bad_one_was(pack, mine):
    words = ("--shard_mb", "0")
    assert "1 image cannot be packed" in pack("damaged", *words, code=3)
    write_tree(mine, {"1.bin": image_bytes(1)})  # which the function reads
    reader = pack("damaged", *words)
    assert reader.keys() == ["0", "1", "2"]
    assert np.array_equal(decode(reader.read(1).image), decode(image_bytes(1)))
    write_tree(mine, {"1.bin": image_bytes(2)})
    assert "00001.lmdb was packed of other images: delete it" in pack("damaged", *words, code=3)
    (reader.folder / "00001.lmdb").unlink()
    assert np.array_equal(decode(pack("damaged", *words).read(1).image), decode(image_bytes(2)))


def test_images_that_another_command_writes_meanwhile_are_not_taken(mine):
    folder = mine / "lmdb/train"
    source = find_yielded(Yielding("my_records:files", [], mine), "train", folder, folder)
    assert source.image(3) == image_bytes(3)
    kept = folder / "records/images.bin"
    kept.write_bytes(kept.read_bytes()[1:] + b"0")
    with pytest.raises(BadImage, match="has changed since it was written"):
        source.image(3)


@pytest.mark.parametrize(
    ("old", "new"), [('(f"b', '(f"c'), ('jpg", "cat")', 'jpg", str(number))'), ("in range(9)", "in range(8)")]
)
@pytest.mark.parametrize("part", [[], ["--part", "1/1"]])
def test_a_split_of_other_records_is_refused(pack, mine, old, new, part):
    pack("other", *part, read=Path)
    mend(mine, old, new)
    assert "begun with another list_sha256: keys or targets are others" in pack("other", *part, code=2)


def test_a_finished_split_is_compared_with_what_is_yielded_now(pack, mine):
    write_tree(mine, {"note": b"0"})
    pack("noted")
    assert pack("noted").labels.tolist() == [0]
    write_tree(mine, {"note": b"1"})
    assert "begun with another list_sha256" in pack("noted", code=2)


def test_wrong_options_do_not_block_the_right_ones(pack):
    assert "yields no records" in pack("files", "most=0", code=2)
    assert "is given twice" in pack("files", "most=3", "most=4", code=2)
    assert len(pack("files", "most=3")) == 3


def test_other_flags_on_a_packed_split_are_named(pack, mine):
    folder = pack("files").folder
    for _ in range(2):
        printed = pack("files", "--pixels", code=2)
        assert "was begun with another pixels, image_size, " in printed
        assert "tiles=True" in printed
        assert "then, pixels=raw now; repeat that command, or delete the folder" in printed
        (folder / "plan.json").unlink(missing_ok=True)
    pack("files")


def test_arrays_and_pillow_images_are_exact_as_pixels(pack, mine):
    reader = pack("arrays", "--pixels")
    assert reader.unlabelled
    assert reader.classes == ()
    for number in (0, 2):
        assert np.array_equal(raw_pixels(reader.read(number).image), pixels(77))
    gray = raw_pixels(reader.read(1).image)
    assert np.array_equal(gray, np.repeat(pixels(77)[..., :1], 3, axis=2))
    as_jpeg = pack("arrays", split="val")
    assert np.abs(decode(as_jpeg.read(0).image).astype(int) - pixels(77)).mean() < 3


def test_lists_of_labels_and_boxes(pack, mine):
    tags = pack("tags", split="tags")
    assert (tags.index.target, tags.classes) == ("multi", ("blue", "green", "red"))
    assert tags.labels.tolist() == [[1, 0, 1], [0, 0, 0], [1, 0, 0], [0, 0, 1]]
    boxes = pack("boxes", split="boxes")
    assert (boxes.index.target, boxes.classes) == ("detection", ("cat", "dog"))
    assert boxes.read(0).target == Boxes(((1, 2, 10, 12.5), (0, 0, 5, 5)), (1, 0), (False, True), (False, False))
    assert boxes.read(1).target.labels == ()
    numbers = pack("Numbers", split="numbers")
    assert (numbers.labels.tolist(), numbers.classes) == ([0, 1, 2, 0], ("a", "b", "c", "d"))


def test_damaged_images_are_named_or_left_out(pack, mine):
    assert "train/1: not an image that Pillow can read" in pack("damaged", code=3)
    reader = pack("damaged", "--skip_bad")
    assert reader.keys() == ["0", "2"]
    assert "train/1: left out" in (reader.folder / "report.txt").read_text()


WRONG = {
    "raises": r"record 1 \(from 0\): .*my_records.py, line \d+ raised KeyError: 'missing'",
    "path": r"record 1 \(from 0\), yielded at .*my_records.py, line \d+: no file '.*none.jpg'",
    "tuple": "it is a tuple, and dataset.Record is expected",
    "float": "its target has 0.5: expected a label from 0, a name",
    "bool": "its target has True",
    "key": "its key is '': expected a text",
    "kind": "it has the name of a label, and those before it have a label",
    "array": r"its image is float64 \[2, 2, 3\]: expected the bytes of a file",
    "again": "its key '0' is that of record 0",
    "label": r"record 1 \(from 0\): its label 7 is none of the 1 classes, 'only'",
}


@pytest.mark.parametrize("how", WRONG)
def test_a_wrong_record_is_named_with_its_line(pack, how):
    assert re.search(WRONG[how], pack("bad", f"how={how}", code=2))


BOXED = {
    "right": (3, "train/0: a box reaches from 20, 20 to 400, 100, which is outside of its 32 x 24 pixels"),
    "left": (3, "a box reaches from -3, -3 to 4, 4, which is outside"),
    "far": (3, "a box reaches from 0, 0 to 1e+300, 4"),
    "area": (2, "an area is nan: expected a number of pixels"),
    "number": (2, "boxes of its Boxes is 3: expected x1, y1, x2, y2 of each box"),
    "text": (2, "boxes of its Boxes is ('abcd',)"),
    "corner": (2, "boxes of its Boxes is ((0, 0, None, 4),)"),
    "labels": (2, "labels of its Boxes is 0: expected a label of each box"),
    "difficult": (2, "difficult of its Boxes is None: expected False or True for each box"),
    "crowd": (2, "crowd of its Boxes is ('no',)"),
    "few": (2, "a box is [0.0, 0.0, 4.0]: expected x1, y1, x2, y2 in pixels"),
}


@pytest.mark.parametrize("how", BOXED)
def test_boxes_that_cannot_be_are_named(pack, how):
    code, said = BOXED[how]
    assert said in pack("boxed", f"how={how}", code=code)


@pytest.mark.parametrize("size", [[], ["--image_size", "23"]])
def test_a_box_as_large_as_its_image_is_inside(pack, mine, size):
    folder = pack("boxed", "how=edge", *size, read=Path)
    assert len(ShardReader(folder.with_name("train_23") if size else folder)) == 1


ODD = {
    "key": r"its key is '\\ud800': expected a text",
    "label": r"its target has '\\ud800'",
    "cut": r"record 0 \(from 0\), yielded at .*: its image cannot be read: OSError: image file is truncated",
    "closed": r"record 0 \(from 0\), .*: its image cannot be read: ValueError: Operation on closed image",
    "hot": "its target has 0 twice: a list holds the numbers of the classes",
    "exits": r"my_records.py, line \d+, ends the program \(SystemExit: 0\): return, or raise",
    "parses": r"my_records.py, line \d+, ends the program",
}


@pytest.mark.parametrize("how", ODD)
def test_what_no_record_can_hold_is_named(pack, how):
    assert re.search(ODD[how], pack("odd", f"how={how}", code=2))


def test_labels_that_are_kinds_of_text_are_names(pack):
    reader = pack("texts")
    assert (reader.keys(), reader.classes, reader.labels.tolist()) == (["dog", "cat"], ("cat", "dog"), [1, 0])


def test_numbers_that_no_record_has_are_told(pack, mine):
    assert pack("gaps").classes == tuple("0123456")
    assert "train: no record has label 0: there are 7 classes, counted from 0" in pack("gaps", read=None)


@pytest.mark.parametrize(
    ("name", "words", "said"),
    [
        ("files", ["most=many"], "most=many: expected a whole number"),
        ("files", ["least=1"], "least=1: my_records:files has no option least; it has most, name"),
        ("bad", [], "my_records:bad needs how=..."),
        ("twice", [], "its classes are ('a', 'a'): expected names, of which each is another"),
        ("unordered", [], "expected names, of which each is another, in a list or tuple"),
        ("unnamed", [], "its classes are None: expected names"),
        ("gone", [], "my_records has no function gone"),
        ("files", ["--split", "../y"], "--split '../y': expected a name"),
        ("files", ["--split", ""], "--split '': expected a name"),
        ("nothing", [], "'NoneType' object is not iterable"),
        ("files", ["most=0"], "my_records:files yields no records"),
    ],
)
def test_a_wrong_call_is_named(pack, name, words, said):
    assert said in pack(name, *words, code=2)


def test_options_are_typed_by_annotations_that_nothing_resolves(pack):
    """As those are which `from __future__ import annotations` makes of names that type checkers alone import."""
    assert len(pack("annotated", "most=2", "rate=0.25", "place=there", "flip=true")) == 2
    assert "most=x: expected a whole number" in pack("annotated", "most=x", split="val", code=2)


def test_a_module_of_the_same_name_from_elsewhere_is_never_taken_for_it(pack, mine, tmp_path_factory, monkeypatch):
    pack("files")
    other = tmp_path_factory.mktemp("other")
    (other / "my_records.py").write_text(MODULE)
    monkeypatch.chdir(other)
    printed = pack("files", split="val", code=2)
    assert f"my_records:files is that of {other}/my_records.py, and Python has my_records from {mine}" in printed


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("my_records.py:files", "a module is named without .py: my_records:files"),
        ("builtins:dict", "Python does not say what it takes"),
        ("ending:files", "ending.py, line 1, ends the program (SystemExit: bye)"),
    ],
)
def test_a_path_that_leads_to_no_function_is_named(mine, command, path, said):
    write_tree(mine, {"ending.py": b"raise SystemExit('bye')"})
    code, _, printed = command(tool.main, path, "--output_path", mine / "lmdb", "--split", "train")
    assert code == 2
    assert said in printed


def test_another_function_does_not_go_on(pack, mine):
    pack("files")
    assert "has the records of my_records:files: repeat that command, or delete" in pack("other", code=2)
