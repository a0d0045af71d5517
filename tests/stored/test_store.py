"""Files of stored outputs: whole or not there, checked, joined, and refused where they are of something else."""

import json
import shutil

import numpy as np
import pytest

from stored import store as module
from stored.store import PRIOR, Shape, Store
from utils.errors import DataError, UsageError

SHAPE = Shape(5, 0, None, 6, 5)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(module, "BLOCK", 8)


def made(path, facts=None, samples=20, **more):
    store = Store(path, {"seed": 0} if facts is None else facts, samples, **more)
    store.begin(SHAPE)
    return store


def records(seed=0, samples=20, size=6):
    return np.random.default_rng(seed).integers(0, 256, (samples, size), np.uint8)


def filled(path, epochs=(0,), blocks=None, **more):
    store = made(path, **more)
    for epoch in epochs:
        for block in range(store.blocks) if blocks is None else blocks:
            store.write("weak", epoch, block, records(epoch)[store.of_block(block)])
    return store


def test_what_is_written_is_read(tmp_path):
    store = filled(tmp_path / "store", epochs=(0, 3))
    assert store.blocks == 3
    for epoch in (0, 3):
        assert store.is_whole("weak", epoch)
        assert np.array_equal(store.read_whole("weak", epoch), records(epoch))
    assert not store.is_whole("weak", 1)
    assert store.read_whole("weak", 1) is None
    assert store.read_whole("strong", 0) is None
    assert store.read("weak", PRIOR, 0) is None
    store.write("weak", PRIOR, 2, records(size=5, samples=4))
    assert np.array_equal(store.read("weak", PRIOR, 2), records(size=5, samples=4))


def test_parts_of_machines_are_joined_by_copying(tmp_path):
    whole = filled(tmp_path / "whole", epochs=(0, 1))
    for number in range(3):
        filled(tmp_path / f"part{number}", epochs=(1, 0), blocks=[number])
        shutil.copytree(tmp_path / f"part{number}", tmp_path / "joined", dirs_exist_ok=True)
    joined = made(tmp_path / "joined")
    for epoch in (0, 1):
        assert np.array_equal(joined.read_whole("weak", epoch), whole.read_whole("weak", epoch))


@pytest.mark.parametrize("change", ["flip", "cut", "grow", "empty"])
def test_a_damaged_block_is_named_or_computed_again(tmp_path, change):
    store = filled(tmp_path / "store")
    (path,) = (tmp_path / "store").glob("weak/*/00001.block")
    content = bytearray(path.read_bytes())
    if change == "flip":
        content[17] ^= 4
    path.write_bytes({"flip": content, "cut": content[:-6], "grow": content + b"123456", "empty": b""}[change])
    with pytest.raises(DataError, match=r"00001\.block is damaged: delete it, and it is computed again"):
        store.read_whole("weak", 0)
    again = made(tmp_path / "store", recompute=True)
    assert again.read_whole("weak", 0) is None
    assert not path.exists()
    again.write("weak", 0, 1, records()[8:16])
    assert np.array_equal(made(tmp_path / "store").read_whole("weak", 0), records())


def test_parts_of_a_stopped_run_come_back_and_damaged_ones_do_not(tmp_path):
    store = made(tmp_path / "store")
    for name, index in (("a", [3, 19]), ("b", [0]), ("c", [7])):
        store.write_part("weak", 0, name, np.array(index), records()[index])
    damaged = tmp_path / "store/weak/0000/c.part"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"x")
    found = {int(one): row.tobytes() for index, rows in store.parts("weak", 0) for one, row in zip(index, rows)}
    assert found == {one: records()[one].tobytes() for one in (0, 3, 19)}
    assert not store.is_whole("weak", 0)
    store.remove_parts("weak", 0)
    assert not list(store.parts("weak", 0))


def test_what_cannot_be_read_or_removed_is_named_with_what_to_do(tmp_path):
    store = filled(tmp_path / "store", blocks=[0])
    part = tmp_path / "store/weak/0000/run.part"
    part.mkdir()
    with pytest.raises(DataError, match=r"run\.part cannot be read \(Is a directory\): let it be read, or delete it"):
        [*store.parts("weak", 0)]
    with pytest.raises(DataError, match=r"run\.part cannot be removed: .*: delete it by hand"):
        store.remove_parts("weak", 0)
    (tmp_path / "store/weak/0000/00001.block").mkdir()
    with pytest.raises(
        DataError, match=r"00001\.block cannot be read \(Is a directory\): let it be read, or delete it"
    ):
        store.read("weak", 0, 1)


def test_other_facts_are_named_and_refused(tmp_path):
    facts = {"seed": 0, "data.flip": True, "teacher.weights": "sha256 aa"}
    filled(tmp_path / "store", facts=facts)
    made(tmp_path / "store", facts=facts)
    for other, named in (
        ({**facts, "seed": 1}, "seed 0 there, 1 here"),
        ({**facts, "data.flip": False}, "data.flip true there, false here"),
        ({**facts, "new": None}, "new not known there, null here"),
        ({"seed": 0}, "data.flip true there, not known here, teacher.weights"),
    ):
        with pytest.raises(UsageError, match=named):
            made(tmp_path / "store", facts=other, key="teachers.t.store")
    with pytest.raises(UsageError, match="samples 20 there, 21 here"):
        made(tmp_path / "store", facts=facts, samples=21)
    with pytest.raises(UsageError, match="the teacher has Shape"):
        Store(tmp_path / "store", facts, 20).begin(SHAPE._replace(classes=6))


def test_a_manifest_of_an_older_version_has_no_checksum_and_a_changed_one_another(tmp_path):
    store = filled(tmp_path / "store")
    manifest = tmp_path / "store/manifest.json"
    content = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({**content, "shape": {**content["shape"], "classes": 6}}))
    with pytest.raises(DataError, match="its checksum is another"):
        made(tmp_path / "store")
    del content["sha256"]
    manifest.write_text(json.dumps(content))
    assert np.array_equal(made(tmp_path / "store").read_whole("weak", 0), store.read_whole("weak", 0))


def test_blocks_that_nothing_says_the_origin_of_are_refused(tmp_path):
    store = filled(tmp_path / "store")
    (tmp_path / "store/manifest.json").unlink()
    with pytest.raises(DataError, match="has gone: give another folder"):
        store.write("weak", 1, 0, records()[:8])
    with pytest.raises(UsageError, match=r"has no .*manifest\.json, which says what it is of"):
        made(tmp_path / "store", facts={"seed": 1})


def test_a_folder_of_something_else_is_no_store(tmp_path):
    for name in (".lock", "metrics.jsonl"):
        (tmp_path / name).touch()
    with pytest.raises(UsageError, match=r"is no store, and holds metrics\.jsonl: give a new folder"):
        made(tmp_path)
    (tmp_path / "metrics.jsonl").unlink()
    assert made(tmp_path).shape == SHAPE


def test_one_that_another_began_meanwhile_is_compared(tmp_path):
    ours, theirs = (Store(tmp_path / "store", {"seed": seed}, 20) for seed in (0, 1))
    theirs.begin(SHAPE)
    with pytest.raises(UsageError, match="seed 1 there, 0 here"):
        ours.begin(SHAPE)


def test_where_damaged_blocks_are_removed_an_epoch_with_one_is_not_whole(tmp_path):
    filled(tmp_path / "store")
    (path,) = (tmp_path / "store").glob("weak/*/00001.block")
    path.write_bytes(b"x" * path.stat().st_size)
    assert made(tmp_path / "store").is_whole("weak", 0)
    assert not made(tmp_path / "store", recompute=True).is_whole("weak", 0)


def test_a_changed_manifest_is_damaged(tmp_path):
    filled(tmp_path / "store")
    manifest = tmp_path / "store/manifest.json"
    manifest.write_text(manifest.read_text().replace('"classes": 5', '"classes": 6'))
    with pytest.raises(DataError, match="its checksum is another"):
        made(tmp_path / "store")


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{}", b'{"depends_on": 1, "shape": 2, "sha256": ""}', b"\xff", b"[" * 100_000]
)
def test_a_damaged_manifest_is_named(tmp_path, content):
    filled(tmp_path / "store")
    manifest = tmp_path / "store/manifest.json"
    json.loads(manifest.read_bytes())
    manifest.write_bytes(content)
    with pytest.raises(DataError, match=r"manifest\.json is damaged"):
        made(tmp_path / "store")
