"""Shards: what is written is read, and any damage is a DataError that names the file."""

import errno
import hashlib
import json
import os
import pickle
import shutil
import subprocess
import sys
from dataclasses import replace
from multiprocessing import get_context
from types import SimpleNamespace

import lmdb
import numpy as np
import pytest
from conftest import ROOT
from dataset_helpers import flip_bit
from splits import records, write_split

from dataset.store.index import INDEX, Index, columns_path, describe
from dataset.store.reader import ShardReader
from dataset.store.record import Boxes, Record, pack
from dataset.store.writer import ShardWriter
from utils.errors import DataError
from utils.files import write_atomically


@pytest.fixture
def split(tmp_path):
    return write_split(tmp_path / "split", records(4, 1), records(3, 2))


def test_every_record_comes_back_in_order(tmp_path):
    shards = records(5, 1), [], records(1, 2), []
    reader = ShardReader(write_split(tmp_path / "split", *shards))
    written = [record for shard in shards for record in shard]
    assert len(reader) == 6
    assert [reader.read(number) for number in range(6)] == written
    assert [reader.read(number) for number in reversed(range(6))] == written[::-1]
    assert reader.keys() == [record.key for record in written]
    assert reader.labels.tolist() == [0, 1, 2, 0, 1, 0]
    assert reader.labels.dtype == np.int32
    assert reader.sizes.tolist() == [[1, 2], [2, 2], [3, 2], [4, 2], [5, 2], [1, 2]]
    reader.verify()
    reader.close()
    assert reader.read(0) == written[0]  # a closed reader opens again
    reader.close()


def test_the_map_grows_and_no_record_is_lost(tmp_path):
    written = records(1200, size=2000)  # more than two transactions
    reader = ShardReader(write_split(tmp_path / "split", written, map_bytes=1))
    assert [reader.read(number) for number in range(1200)] == written


def test_writing_twice_gives_the_same_bytes(tmp_path):
    folders = [write_split(tmp_path / name, records(9)) for name in ("one", "two")]
    for name in ("00000.lmdb", "00000.columns.npz", INDEX):
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes()
    assert sorted(path.name for path in folders[0].iterdir()) == ["00000.columns.npz", "00000.lmdb", INDEX]


def test_an_abandoned_shard_leaves_nothing(tmp_path):
    with ShardWriter(tmp_path / "00000.lmdb", 1) as writer:
        writer.add(records(1)[0], 1, 1)
        assert len(list(tmp_path.iterdir())) == 1
    assert list(tmp_path.iterdir()) == []


def test_multi_label_targets(tmp_path):
    targets = [(0, 2), (), (1, -1, -3)]
    written = [Record(str(labels), b"", labels) for labels in targets]
    reader = ShardReader(write_split(tmp_path / "split", written, target="multi"))
    assert reader.labels.dtype == np.int8
    assert reader.labels.tolist() == [[1, 0, 1], [0, 0, 0], [-1, 1, -1]]
    assert [reader.read(number).target for number in range(3)] == targets


def test_detection_targets(tmp_path):
    boxes = Boxes(((0.5, 1.0, 9.25, 8.0), (0.0, 0.0, 3.0, 3.0)), (2, 2), (False, True), (True, False))
    written = [Record("two", b"a", boxes), Record("none", b"b", Boxes((), (), (), ()))]
    reader = ShardReader(write_split(tmp_path / "split", written, target="detection"))
    assert [reader.read(number) for number in range(2)] == written
    assert reader.labels.tolist() == [[0, 0, 1], [0] * 3]


def test_a_pickled_reader_reads(split):
    reader = ShardReader(split)
    first = reader.read(0)
    blob = pickle.dumps(reader)
    assert len(blob) < 10_000
    reader.close()
    assert pickle.loads(blob).read(0) == first


def keys_in_a_child(reader):
    """Keys that a forked process reads, or the type of what it raises."""

    def child(connection):
        try:
            connection.send([reader.read(number).key for number in range(len(reader))])
        except BaseException as error:
            connection.send(type(error))

    context = get_context("fork")
    here, there = context.Pipe()
    process = context.Process(target=child, args=(there,))
    process.start()
    assert here.poll(30)
    keys = here.recv()
    process.join(30)
    return keys


def test_a_forked_process_reads_what_its_parent_has_not(split):
    reader = ShardReader(split)
    assert keys_in_a_child(reader) == reader.keys()
    assert reader.read(0).key == "1/0"  # the child held the parent back from nothing
    assert keys_in_a_child(reader) is AssertionError
    reader.close()
    assert keys_in_a_child(reader) == reader.keys()


def refused(split, *words):
    with pytest.raises(DataError) as caught:
        ShardReader(split)
    assert all(word in str(caught.value) for word in words), caught.value


@pytest.mark.parametrize("share", [0, 0.3, 0.99])
def test_a_truncated_shard_is_refused_before_it_is_mapped(split, share):
    shard = split / "00001.lmdb"
    os.truncate(shard, int(shard.stat().st_size * share))
    refused(split, "00001.lmdb has", "the index says")


def test_missing_files_are_named(split):
    for name in ("00001.lmdb", "00001.columns.npz"):
        (split / name).rename(split / "away")
        refused(split, name, "is missing")
        (split / "away").rename(split / name)
    (split / INDEX).unlink()
    refused(split, "holds no index.json", "img2lmdb.py")


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b"null", b"{}", b"\xff\xfe", b'{"format": "parquet", "version": 1}']
)
def test_a_foreign_index_is_refused(split, data):
    (split / INDEX).write_bytes(data)
    refused(split, INDEX)


@pytest.mark.parametrize("field", ["format", "version", "target", "classes", "records", "shards"])
@pytest.mark.parametrize("value", [None, 8, "other", [], {"a": 1}, [3]])
def test_a_wrong_field_of_the_index_is_refused(split, field, value):
    fields = json.loads((split / INDEX).read_text())
    changed = {**fields, field: value} if value is not None else {k: v for k, v in fields.items() if k != field}
    changed.pop("sha256")  # as of one that was written by hand
    if (field, value) == ("classes", "other"):
        return  # other names are still names
    (split / INDEX).write_text(json.dumps(changed))
    refused(split, "" if field == "classes" else INDEX)


@pytest.mark.parametrize("checksum", [True, False])
def test_a_flipped_bit_of_the_index_changes_no_record(split, checksum):
    if not checksum:  # as indexes were written before
        fields = json.loads((split / INDEX).read_text())
        assert list(fields)[-1] == "sha256"
        fields.pop("sha256")
        (split / INDEX).write_text(json.dumps(fields, indent=1))
    sound = ShardReader(split)
    expected = [sound.read(number) for number in range(len(sound))]
    sound.close()
    text = (split / INDEX).read_bytes()
    for position in range(0, len(text), 3):
        flip_bit(split / INDEX, position, position % 8)
        try:
            reader = ShardReader(split)
        except DataError:
            continue
        finally:
            (split / INDEX).write_bytes(text)
        assert not checksum or reader.index == sound.index
        assert len(reader) == len(expected)
        assert (reader.labels == sound.labels).all()
        assert [reader.read(number) for number in range(len(reader))] == expected
        reader.close()


def test_the_checksum_is_of_the_text_before_it(split):
    text, _, checksum = (split / INDEX).read_bytes().rpartition(b",")
    assert json.loads(b"{" + checksum) == {"sha256": hashlib.sha256(text).hexdigest()}
    for other in ("other", "aa"):  # a class, spelled otherwise by hand
        (split / INDEX).write_bytes((split / INDEX).read_bytes().replace(b'"a"', f'"{other}"'.encode()))
        refused(split, "its checksum differs")


COLUMNS = {
    "an array is missing": lambda columns: columns.pop("height"),
    "key is uint16": lambda columns: columns.update(key=columns["key"].astype(np.uint16)),
    "label is int64": lambda columns: columns.update(label=columns["label"].astype(np.int64)),
    "crc32 is uint32 of 2": lambda columns: columns.update(crc32=columns["crc32"][:, None]),
    "crc32 has 2 entries": lambda columns: columns.update(crc32=columns["crc32"][1:]),
    "Object arrays cannot be loaded": lambda columns: columns.update(width=np.array([None, {}, 1], object)),
    "label_count disagree": lambda columns: columns.update(label_count=columns["label_count"] * 2),
    "and label_count disagree": lambda columns: columns.update(label_count=np.array([-1, 1, 3], np.int32)),
    "label and label_count disagree": lambda columns: columns.update(label_count=np.array([0, 1, 2], np.int32)),
    "not in 0 to 2": lambda columns: columns.update(label=columns["label"] + np.int32(3)),
    "a label is not in": lambda columns: columns.update(label=columns["label"] - np.int32(1)),
    "has no pixels": lambda columns: columns.update(height=columns["height"] * 0),
    "not 3 keys": lambda columns: columns.update(key=columns["key"][:4]),
}


@pytest.mark.parametrize("problem", COLUMNS)
def test_foreign_columns_are_refused(split, problem):
    """Whose checksum agrees, for another program wrote them."""
    path = columns_path(split / "00001.lmdb")
    columns = dict(np.load(path))
    COLUMNS[problem](columns)
    np.savez(path, **columns)
    sign_again(split)
    refused(split, "00001.columns.npz", "KeyError" if problem == "an array is missing" else problem)


def test_an_index_that_is_nested_without_end_is_refused():
    with pytest.raises(DataError, match="nested too deeply"):
        Index.parse(b"[" * 100_000, INDEX)


@pytest.mark.parametrize(
    "data", [b"", b"PK\x03\x04", b"\x93NUMPY\x01\0\x10\0{'descr': '<i4' ", b"text", b"PK\5\6" + bytes(18)]
)
def test_columns_that_are_no_arrays_are_refused(split, data):
    columns_path(split / "00001.lmdb").write_bytes(data)
    sign_again(split)
    refused(split, "00001.columns.npz")


def sign_again(split):
    """Write the index anew, with the checksums that the files have now."""
    index = Index.read(split)
    shards = tuple(describe(split / shard.file, shard.records) for shard in index.shards)
    replace(index, shards=shards).write(split)


def test_damaged_or_exchanged_columns_are_refused(split):
    columns = columns_path(split / "00001.lmdb")
    data = columns.read_bytes()
    for position in range(0, len(data), 7):
        flip_bit(columns, position, position % 8)
        refused(split, "00001.columns.npz")
        columns.write_bytes(data)
    for other in (b"", data[:-1], columns_path(split / "00000.lmdb").read_bytes()):
        columns.write_bytes(other)
        refused(split, "00001.columns.npz")


def test_a_flipped_bit_in_a_record_is_found(split):
    shard = split / "00001.lmdb"
    value = pack(records(3, 2)[1])
    start = shard.read_bytes().index(value)
    for position in range(start, start + len(value), 5):
        flip_bit(shard, position, position % 8)
        reader = ShardReader(split)
        assert reader.read(4).key == "2/0"
        with pytest.raises(DataError, match=r"00001\.lmdb, record 1: damaged on disk"):
            reader.read(5)
        with pytest.raises(DataError, match=r"00001\.lmdb is not what the index describes"):
            reader.verify()
        reader.close()
        flip_bit(shard, position, position % 8)


@pytest.mark.parametrize("content", [b"\0", b"\xff", b"garbage "])
def test_a_shard_of_the_right_size_and_wrong_content(split, content):
    shard = split / "00000.lmdb"
    size = shard.stat().st_size
    shard.write_bytes((content * size)[:size])
    script = f"from pathlib import Path; from dataset.store.reader import *; ShardReader(Path({str(split)!r})).read(0)"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1  # an exception, not a signal
    assert "utils.errors.DataError" in done.stderr
    assert "00000.lmdb" in done.stderr


@pytest.mark.parametrize(
    "text", ["mdb_txn_commit: No space left on device", "Disk quota exceeded", "Input/output error"]
)
@pytest.mark.parametrize("name", ["begin", "sync", "open"])
def test_a_full_disk_is_a_data_error_and_leaves_nothing(tmp_path, monkeypatch, name, text):
    def full(*_arguments, **_options):
        raise lmdb.DiskError(text)

    def write():
        with ShardWriter(tmp_path / "00000.lmdb", 1 << 20) as writer:
            real = writer._environment
            if name != "open":
                fake = SimpleNamespace(begin=real.begin, sync=real.sync, close=real.close)
                setattr(fake, name, full)
                writer._environment = fake
            writer.add(records(1)[0], 1, 1)
            writer.finish()

    if name == "open":
        monkeypatch.setattr(lmdb, "open", full)
    with pytest.raises(DataError, match=r"the disk is full .*Finished shards are kept"):
        write()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_failed_write_leaves_what_stood_there(tmp_path, monkeypatch, number):
    (tmp_path / "file").write_bytes(b"before")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=1))

    def fail(file):
        file.write(b"half")
        raise OSError(number, os.strerror(number))

    with pytest.raises(DataError, match="disk is full" if number != errno.EIO else "cannot be written: Input/output"):
        write_atomically(tmp_path / "file", fail)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_bytes() == b"before"
