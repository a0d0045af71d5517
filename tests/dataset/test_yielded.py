"""source2lmdb.py: what a function of one's own yields, with all that packing tools can do."""

import os
import re
import signal
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT
from dataset_helpers import image_bytes, pack_in_this_process, pixels, shard_bytes, write_tree

import dataset.source2lmdb as tool
from dataset.jpeg.decode import decode
from dataset.jpeg.raw import raw_pixels
from dataset.store.reader import ShardReader
from dataset.store.record import Boxes

MODULE = """
import os, signal
from pathlib import Path
import numpy as np
from PIL import Image
from dataset import Boxes, Record

HERE = Path(__file__).parent
PIXELS = np.load(HERE / "pixels.npy")

def files(most: int = 9, name: str = "a"):
    for number in range(most):
        path = HERE / f"{number}.jpg"
        yield Record(f"{name}{number}", path.read_bytes() if number % 2 else path, ("cat", "dog", "cow")[number % 3])

def few(**options):
    yield from (record for record in files() if record.target != "cat")

def annotated(most: "int", rate: float = 0.5, place: "Path | os.Unknown" = "", *, flip: "bool" = False):
    assert (most, rate, place, flip) == (2, 0.25, "there", True)
    yield from files(most)

def slow():
    for record in files(600):
        if record.key == "a5" and (HERE / "bomb").exists():
            os.kill(os.getpid(), signal.SIGKILL)
        yield record

def other():
    for number in range(9):
        yield Record(f"b{number}", HERE / f"{number}.jpg", "cat")

def arrays():
    yield Record("rgb", PIXELS)
    yield Record("gray", PIXELS[..., 0], None)
    yield Record("pil", Image.fromarray(PIXELS), -1)
    yield Record("palette", Image.fromarray(PIXELS).convert("P"))

def tags():
    for number, target in enumerate([["red", "blue"], [], {"blue"}, ("red", "red")]):
        yield Record(str(number), HERE / f"{number}.jpg", target)
tags.classes = ("blue", "green", "red")

def boxes():
    target = Boxes(((1, 2, 10, 12.5), (0, 0, 5, 5)), ("dog", "cat"), (False, True), (False, False))
    yield Record("0", HERE / "0.jpg", target)
    yield Record("1", HERE / "1.jpg", Boxes((), (), (), ()))

class Numbers:
    classes = ("a", "b", "c", "d")
    def __iter__(self):
        return (Record(str(n), HERE / f"{n}.jpg", np.int64(n % 3)) for n in range(4))

def damaged():
    for number in range(3):
        yield Record(str(number), b"junk" if number == 1 else HERE / "0.jpg", 0)

def bad(how: str):
    yield Record("0", HERE / "0.jpg", 0)
    if how == "raises":
        yield {}["missing"]
    yield {
        "path": Record("1", HERE / "none.jpg", 0), "tuple": ("1", b"", 0), "float": Record("1", b"", 0.5),
        "bool": Record("1", b"", True), "key": Record("", b"", 0), "kind": Record("1", b"", "name"),
        "array": Record("1", np.zeros((2, 2, 3)), 0), "again": Record("0", b"", 0), "label": Record("1", b"", 7),
    }[how]
bad.classes = ("only",)

def nothing():
    return None

def twice():
    yield Record("0", HERE / "0.jpg", 0)
twice.classes = ("a", "a")
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """my_records.py in the current folder."""
    images = {f"{number}.jpg": image_bytes(number) for number in range(9)}
    write_tree(tmp_path, {**images, "my_records.py": MODULE.encode()})
    np.save(tmp_path / "pixels.npy", pixels(77))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*sys.path])
    yield tmp_path
    sys.modules.pop("my_records", None)


@pytest.fixture
def pack(mine, monkeypatch, capfd):
    """source2lmdb.py in this process: the reader of what it packed, or what it printed where it ended with a code."""
    pack_in_this_process(monkeypatch)

    def call(name, *words, split="train", code=0):
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
        return printed.err if code else ShardReader(mine / "lmdb" / split)

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


def test_a_kill_while_records_are_read_loses_nothing(pack, mine, monkeypatch):
    for number in range(9, 600):
        os.link(mine / f"{number % 9}.jpg", mine / f"{number}.jpg")
    module = (mine / "my_records.py").read_text().replace('"a5"', '"a590"')
    (mine / "my_records.py").write_text(module)
    write_tree(mine, {"bomb": b""})
    pack_part(mine, name="slow", split="train", code=-signal.SIGKILL)
    kept = mine / "lmdb/train/records"
    assert (kept / "records.bin").stat().st_size > 1000  # what was kept before
    with (kept / "records.bin").open("ab") as file:
        file.write(b"\x94\xa2a")  # half of a record
    with (kept / "images.bin").open("ab") as file:
        file.write(b"and of an image")
    assert "has the records of my_records:slow" in pack("other", code=2)
    (mine / "bomb").unlink()
    resumed = pack("slow")
    assert resumed.keys() == [f"a{number}" for number in range(600)]
    for number in (0, 255, 257, 599):
        assert np.array_equal(decode(resumed.read(number).image), decode(image_bytes(number % 9)))


def test_records_in_another_order_after_a_kill_are_refused(pack, mine):
    pack("other", split="val")
    kept = mine / "lmdb/val/records/records.bin"
    kept.write_bytes(kept.read_bytes()[:-1])  # not all
    module = mine / "my_records.py"
    module.write_text(module.read_text().replace('f"b{number}"', 'f"b{8 - number}"'))
    sys.modules.pop("my_records")
    assert "its key is 'b8', and was 'b0' before: records must come in the same order" in pack(
        "other", split="val", code=2
    )


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


@pytest.mark.parametrize(
    ("name", "words", "said"),
    [
        ("files", ["most=many"], "most=many: expected a whole number"),
        ("files", ["least=1"], "least=1: my_records:files has no option least; it has most, name"),
        ("bad", [], "my_records:bad needs how=..."),
        ("twice", [], "its classes are ('a', 'a'): expected names, of which each is another"),
        ("gone", [], "my_records has no function gone"),
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


def test_another_function_does_not_go_on(pack, mine):
    pack("files")
    assert "has the records of my_records:files: repeat that command, or delete" in pack("other", code=2)
