"""LMDB folders in the layout of the WSLD repository's own scripts."""

import os
import subprocess
import sys

import lmdb
import msgpack
import pytest
import torch
from conftest import ROOT
from dataset_helpers import image_bytes
from splits import FILES, write_patched, write_wsld

from dataset.loader import DataConfig, EvalLoader, open_split
from dataset.store.wsld import WsldReader, is_wsld_folder
from utils.errors import DataError


def contents(reader):
    return {record.key: (record.image, record.target) for record in map(reader.read, range(len(reader)))}


@pytest.mark.parametrize("write", [write_wsld, write_patched])
def test_records_come_back(tmp_path, write):
    folder = write(tmp_path / "val", FILES)
    assert is_wsld_folder(folder)
    reader = WsldReader(folder)
    assert len(reader) == len(FILES)
    assert contents(reader) == FILES
    assert reader.classes == ("n00", "n01", "2", "n03")  # no image tells the name of class 2
    reader.close()
    assert contents(reader) == FILES
    reader.close()


def test_the_plain_order_is_that_of_the_keys(tmp_path):
    reader = WsldReader(write_wsld(tmp_path, FILES))
    assert [reader.read(number).key for number in range(len(reader))] == sorted(FILES)
    reader.close()


def test_values_of_older_msgpack_are_read(tmp_path):
    reader = WsldReader(write_wsld(tmp_path, FILES, use_bin_type=False))
    assert contents(reader) == FILES
    reader.close()


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_reads_it(tmp_path, workers):
    write_patched(tmp_path / "val", FILES)
    config = DataConfig(str(tmp_path), num_workers=workers, input_size=8, val_resize=9, val_batch_size=4)
    samples = open_split(config, "val", "lmdb")
    assert isinstance(samples, WsldReader)
    loader = EvalLoader(samples, config, rank=0, world=1, device=torch.device("cpu"))
    labels = torch.cat([batch["labels"] for batch in loader]).tolist()
    loader.close()
    assert sorted(labels) == [0, 0, 1, 1, 3, 3]


@pytest.mark.parametrize("size", [0, 100, 4096, 5000, 8192, 9000, 0.5, 0.95])
def test_a_truncated_environment_is_a_data_error_and_no_signal(tmp_path, size):
    file = write_wsld(tmp_path / "val", FILES) / "data.mdb"
    os.truncate(file, int(size * file.stat().st_size) if size < 1 else size)
    script = (
        "from pathlib import Path; from dataset.store.wsld import WsldReader\n"
        f"reader = WsldReader(Path({str(file.parent)!r})); [reader.read(n) for n in range(len(reader))]"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "utils.errors.DataError" in done.stderr
    assert "data.mdb" in done.stderr


def test_a_file_that_is_no_lmdb_is_named(tmp_path):
    (tmp_path / "data.mdb").write_bytes(b"no database" * 2000)
    with pytest.raises(DataError, match=r"data\.mdb is not an LMDB file"):
        WsldReader(tmp_path)


def test_what_is_no_wsld_folder(tmp_path):
    assert not is_wsld_folder(tmp_path)
    assert not is_wsld_folder(tmp_path / "absent")
    (tmp_path / "file").touch()
    assert not is_wsld_folder(tmp_path)
    with pytest.raises(DataError, match="holds no records"):
        WsldReader(tmp_path)


def test_a_label_of_two_classes_is_refused(tmp_path):
    files = {**FILES, "n07/1.JPEG": (image_bytes(0), 1)}
    with pytest.raises(DataError, match="label 1 stands for both n01 and n07"):
        WsldReader(write_wsld(tmp_path, files))


@pytest.mark.parametrize(
    "value", [b"\xc4\x05abc", msgpack.packb([1, 2]), msgpack.packb({"a": 1}), msgpack.packb(b"x"), b"\xc1"]
)
def test_a_foreign_value_names_its_key(tmp_path, value):
    write_wsld(tmp_path, {})
    with lmdb.open(str(tmp_path)) as environment, environment.begin(write=True) as transaction:
        transaction.put(b"n00/1.JPEG", value)
    reader = WsldReader(tmp_path)
    with pytest.raises(DataError, match=r"key n00/1\.JPEG: not a WSLD record"):
        reader.read(0)
    reader.close()
