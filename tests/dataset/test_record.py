"""A record is what was packed, or a DataError."""

import os

import msgpack
import pytest
from dataset_helpers import examples
from hypothesis import example, given
from hypothesis import strategies as st

from dataset.store.chosen import relabelled
from dataset.store.record import VERSION, Boxes, Record, classes_of, labels_of, pack, resized, unpack
from utils.errors import DataError

classes = st.integers(0, 2**31 - 1)
corners = st.floats(0, 1e5, allow_nan=False)
fields = (st.tuples(*[corners] * 4), classes, st.booleans(), st.booleans())
objects = st.lists(st.tuples(*fields), max_size=5) | st.lists(st.tuples(*fields, corners), max_size=5)  # with areas
boxes = objects.map(lambda rows: Boxes(*(zip(*rows) if rows else [()] * 4)))
targets = st.one_of(classes, st.lists(classes | classes.map(lambda label: -1 - label)).map(tuple), boxes)
keys = st.binary(max_size=60).map(os.fsdecode)


@examples(100)
@given(keys, st.binary(max_size=200), targets)
@example("caf\udce9/\udcff.JPEG", b"\xff\xd8", 3)
@example("a", b"", ())
@example("a", b"", Boxes((), (), (), ()))
def test_a_record_comes_back_as_it_was_packed(key, image, target):
    record = Record(key, image, target)
    assert unpack(pack(record)) == record
    assert unpack(memoryview(pack(record))) == record
    assert os.fsencode(unpack(pack(record)).key) == os.fsencode(key)


def test_the_layout_is_the_one_documented():
    data = pack(Record("a/\udcff", b"jpeg", Boxes(((0.5, 1, 2, 3),), (7,), (True,), (False,))))
    assert msgpack.unpackb(data) == [
        1,
        b"a/\xff",
        b"jpeg",
        {"boxes": [[0.5, 1, 2, 3]], "labels": [7], "difficult": [True], "crowd": [False]},
    ]
    data = pack(Record("a", b"jpeg", Boxes(((0.5, 1, 2, 3),), (7,), (True,), (False,), (2.5,))))
    assert msgpack.unpackb(data)[3].pop("areas") == [2.5]


OLD = bytes.fromhex(  # as packers wrote it before there were areas
    "9401c40161c4046a70656784a5626f7865739194cb3fe0000000000000010203a66c6162656c739107"
    "a9646966666963756c7491c3a563726f776491c2"
)


def test_a_record_without_areas_is_read_as_before():
    """And written so; its areas are those of its boxes."""
    record = unpack(OLD)
    assert record == Record("a", b"jpeg", Boxes(((0.5, 1, 2, 3),), (7,), (True,), (False,)))
    assert record.target.areas == ()
    assert record.target.object_areas == (3.0,)
    assert pack(record) == OLD
    assert str(record.target) == "Boxes(boxes=((0.5, 1, 2, 3),), labels=(7,), difficult=(True,), crowd=(False,))"


def test_areas_follow_the_pixels_and_the_objects():
    masked = Boxes(((0, 0, 2, 2), (1, 1, 5, 3)), (4, 6), (False,) * 2, (False, True), (3.5, 0.0))
    plain = Boxes(*list(vars(masked).values())[:4])
    assert masked.object_areas == (3.5, 0.0)
    assert str(masked) != str(plain)  # so a source with areas has another digest
    assert resized(masked, (10, 20), (30, 40)).areas == (21.0, 0.0)  # three times as high, twice as wide
    assert resized(plain, (10, 20), (30, 40)).areas == ()
    assert resized(plain, (10, 20), (30, 40)).object_areas == (24.0, 48.0)
    assert relabelled(masked, {6: 0}) == Boxes(((1, 1, 5, 3),), (0,), (False,), (True,), (0.0,))
    assert relabelled(plain, {4: 1, 6: 0}) == Boxes(plain.boxes, (1, 0), plain.difficult, plain.crowd)
    assert relabelled(masked, {}) == relabelled(plain, {}) == Boxes((), (), (), ())


def test_labels_of_any_target():
    assert labels_of(3) == (3,)
    assert labels_of((1, 4)) == (1, 4)
    assert labels_of(()) == ()
    assert labels_of((1, 4, -1)) == (1, 4, -1)
    boxes = Boxes(((0, 0, 1, 1),) * 5, (5, 5, 0, 7, 2), (False, True, True, True, False), (False,) * 4 + (True,))
    assert labels_of(boxes) == (2, 5, -1, -8)
    assert classes_of(boxes) == ([2, 5], [0, 7])
    assert classes_of(3) == ([3], [])


def only_data_error(data):
    try:
        record = unpack(data)
    except DataError:
        return
    assert isinstance(record, Record)


@examples(400)
@given(st.binary(max_size=80))
def test_bytes_of_any_kind_give_a_data_error(data):
    only_data_error(data)


whole_numbers = st.integers(-(2**63), 2**64 - 1)  # what msgpack can hold
anything = st.recursive(
    st.none() | st.booleans() | whole_numbers | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.binary() | whole_numbers, inner),
    max_leaves=8,
)
columns = st.fixed_dictionaries(
    dict.fromkeys(("boxes", "labels", "difficult", "crowd"), anything), optional={"areas": anything}
)


@examples(300)
@given(st.lists(anything, max_size=6) | st.tuples(st.just(VERSION), st.binary(), st.binary(), anything, anything))
def test_msgpack_of_any_other_shape_gives_a_data_error(value):
    only_data_error(msgpack.packb(value))


@examples(300)
@given(columns)
def test_boxes_of_any_other_shape_give_a_data_error(target):
    try:
        found = unpack(msgpack.packb([VERSION, b"", b"", target])).target
    except DataError:
        return
    assert len({len(found.boxes), len(found.labels), len(found.difficult), len(found.crowd)}) == 1
    assert all(type(label) is int for label in found.labels)
    assert len(found.object_areas) == len(found.boxes)


@examples(100)
@given(st.integers(1, 2000))
@example(1000)
@example(100_000)
def test_deep_nesting_gives_a_data_error(depth):
    nested = b"\x91" * depth + b"\xc0"
    for data in (
        nested,
        b"\x95" + nested + b"\xc4\x00\xc4\x00\x00\xc0",
        b"\x95\x01\xc4\x00\xc4\x00" + nested + b"\xc0",
    ):
        with pytest.raises(DataError):
            unpack(data)


BOXES = {"boxes": [[0, 0, 1, 1]], "labels": [0], "difficult": [False], "crowd": [False]}


@pytest.mark.parametrize(
    "value",
    [
        [VERSION + 1, b"k", b"i", 0],
        [True, b"k", b"i", 0],
        ["1", b"k", b"i", 0],
        [VERSION, "k", b"i", 0],
        [VERSION, b"k", "i", 0],
        [VERSION, b"k", b"i", 0, "more"],
        [VERSION, b"k", b"i", True],
        [VERSION, b"k", b"i", 0.5],
        [VERSION, b"k", b"i", [0, "1"]],
        [VERSION, b"k", b"i", "more"],
        [VERSION, b"k", b"i", {"boxes": None, "labels": None, "difficult": None, "crowd": None}],
        [VERSION, b"k", b"i", {"boxes": [[0, 0, 1]], "labels": [0], "difficult": [False], "crowd": [False]}],
        [VERSION, b"k", b"i", {"boxes": [[0, 0, 1, 1]], "labels": [], "difficult": [False], "crowd": [False]}],
        [VERSION, b"k", b"i", {"boxes": [], "labels": []}],
        [VERSION, b"k", b"i", {**BOXES, "areas": []}],
        [VERSION, b"k", b"i", {**BOXES, "areas": [1, 2]}],
        [VERSION, b"k", b"i", {**BOXES, "areas": [True]}],
        [VERSION, b"k", b"i", {**BOXES, "areas": 1.0}],
        [VERSION, b"k", b"i", {**BOXES, "more": [1]}],
        5,
        {},
    ],
)
def test_what_is_not_a_record_is_refused(value):
    with pytest.raises(DataError):
        unpack(msgpack.packb(value))


def test_another_version_is_refused():
    with pytest.raises(DataError, match="record version 2, expected 1"):
        unpack(msgpack.packb([2, b"k", b"i", 0]))


@examples(100)
@given(targets, st.data())
def test_a_record_cut_short_or_continued_is_refused(target, data):
    whole = pack(Record("key", b"image", target))
    with pytest.raises(DataError):
        unpack(whole[: data.draw(st.integers(0, len(whole) - 1))])
    with pytest.raises(DataError):
        unpack(whole + b"\xc0")
