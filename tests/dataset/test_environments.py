"""LMDB files: opened once in a process, few at a time, and never read outside the file, whatever is damaged."""

import errno
import gc
import itertools
import os
import re
import resource
import signal
from contextlib import closing
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import lmdb
import numpy as np
import pytest
import torch
from dataset_helpers import image_bytes
from splits import FILES, records, write_split, write_wsld

from dataset.loader import DataConfig, EvalLoader, TrainLoader, open_split
from dataset.store import environments
from dataset.store.environments import Reading, check_pages
from dataset.store.reader import ShardReader
from dataset.store.record import Record
from dataset.store.writer import ShardWriter
from dataset.store.wsld import WsldReader
from utils.errors import DataError

CPU = torch.device("cpu")
PAGE = 4096
META, BRANCH, LEAF = 8, 1, 2


def read_all(reader):
    """Read a sixth of the records; returns how many of them cannot be read."""
    bad = 0
    for number in range(0, len(reader), 6):
        try:
            reader.read(number)
        except DataError:
            bad += 1
    reader.close()
    return bad


def tree_pages(data):
    """Numbers of the pages of the tree."""
    head = np.frombuffer(data, np.uint8).reshape(-1, PAGE)[:, :16]
    flags = np.ascontiguousarray(head[:, 10:12]).view("<u2")[:, 0]
    numbers = np.ascontiguousarray(head[:, :8]).view("<u8")[:, 0]
    return [page for page in range(2, len(head)) if flags[page] in (BRANCH, LEAF) and numbers[page] == page]


def without_a_signal(check):
    """Run ``check`` in a process of its own; returns what it returns."""
    context = get_context("fork")
    here, there = context.Pipe()
    process = context.Process(target=lambda: there.send(check()))
    process.start()
    there.close()
    process.join(120)
    assert process.exitcode == 0, f"ended with {process.exitcode}"
    return here.recv()


@pytest.mark.parametrize("sizes", [[3000] * 190, [100] * 70, [100, 5000] * 40], ids=["large", "small", "mixed"])
def test_no_flipped_bit_leads_outside_the_file(tmp_path, sizes):
    rows = [Record(f"{number}", bytes([number % 256]) * size, 0) for number, size in enumerate(sizes)]
    folder = write_split(tmp_path / "split", rows, classes=("a",))
    file = folder / "00000.lmdb"
    data = bytearray(file.read_bytes())
    sound = ShardReader(folder)
    assert read_all(sound) == 0
    tree = tree_pages(data)
    generator = np.random.default_rng(0)
    places = [page * PAGE + place for page in (0, 1) for place in range(152)]
    places += [tree[page] * PAGE + place for page, place in generator.integers(0, (len(tree), 500), (200, 2)).tolist()]
    starts = [int.from_bytes(data[page * PAGE + 16 : page * PAGE + 18], "little") + page * PAGE for page in tree]
    places += [start + place for start in starts for place in range(20)]

    def check():
        damaged = 0
        for number, place in enumerate(places):
            with file.open("r+b") as opened:
                opened.seek(place)
                opened.write(bytes([data[place] ^ 1 << (number * 5 + place) % 8]))
            os.utime(file, ns=(number, number))
            damaged += read_all(ShardReader(folder)) > 0
            with file.open("r+b") as opened:
                opened.seek(place)
                opened.write(data[place : place + 1])
        return damaged

    assert without_a_signal(check) > len(places) // 5
    assert file.read_bytes() == data


@pytest.mark.parametrize("field", ["lower", "upper", "flags", "node", "size", "key", "value's page"])
def test_each_number_that_leads_outside_is_found(tmp_path, field):
    folder = write_split(tmp_path / "split", records(3, size=5000))
    file = folder / "00000.lmdb"
    data = bytearray(file.read_bytes())
    page = tree_pages(data)[0] * PAGE
    node = page + int.from_bytes(data[page + 16 : page + 18], "little")
    places = {"flags": page + 10, "lower": page + 12, "upper": page + 14, "node": page + 16}
    places |= {"size": node, "key": node + 6, "value's page": node + 12}
    check_pages(file, "mend")
    for value in (0xFFFE, 0x7FFE):
        broken = data.copy()
        broken[places[field] : places[field] + 2] = value.to_bytes(2, "little")
        file.write_bytes(broken)
        if field == "size" and value < 5000 * 8:
            broken[places[field] + 2] = 1
            file.write_bytes(broken)
        with pytest.raises(DataError, match=r"00000\.lmdb: its tree of pages is damaged; mend"):
            check_pages(file, "mend")


def test_a_tree_of_several_levels_is_walked(tmp_path):
    with ShardWriter(tmp_path / "00000.lmdb", 1 << 20) as writer:
        for number in range(1500):  # two a page
            writer.add(Record(f"{number:05d}", bytes(1500), 0), 1, 1)
        writer.finish()
    with lmdb.open(str(tmp_path / "00000.lmdb"), subdir=False, readonly=True, lock=False) as environment:
        assert environment.stat()["depth"] == 3
    check_pages(tmp_path / "00000.lmdb", "")
    os.truncate(tmp_path / "00000.lmdb", 1 << 20)
    with pytest.raises(DataError, match="is truncated: 1048576 of"):
        check_pages(tmp_path / "00000.lmdb", "")


@pytest.mark.parametrize("on_fault", ["stop", "skip"])
def test_a_shard_that_shrinks_while_it_is_read_is_named(tmp_path, on_fault):
    images = [replace(record, image=image_bytes(1, 16, 16)) for record in records(30)]
    folder = write_split(tmp_path / "val", images)
    settings = {"input_size": 8, "val_resize": 8, "val_batch_size": 3, "on_fault": on_fault}
    loader = EvalLoader(ShardReader(folder), DataConfig(str(tmp_path), num_workers=1, **settings), 0, 1, CPU)
    batches = iter(loader)
    next(batches)
    whole = (folder / "00000.lmdb").stat().st_size
    os.truncate(folder / "00000.lmdb", 2 * PAGE)
    cut = rf"was ended by signal 7 at .*00000\.lmdb, record \d+ .* \(.* has {2 * PAGE} bytes, the index says {whole}"
    if on_fault == "stop":
        with pytest.raises(DataError, match=cut):
            list(batches)
    else:
        with pytest.warns(RuntimeWarning) as said:
            rest = list(batches)
        assert sum(len(batch["index"]) for batch in rest) < 27
        lines = [str(warning.message) for warning in said]
        assert re.search(cut, lines[0])
        assert all("00000.lmdb is truncated" in line for line in lines[1:])  # which the next process sees
    loader.close()


def test_an_empty_file_of_lmdb_is_sound(tmp_path):
    write_wsld(tmp_path, {})
    check_pages(tmp_path / "data.mdb", "")


def test_readers_of_one_file_share_it(tmp_path):
    folder = write_split(tmp_path / "split", records(4))
    (tmp_path / "link").symlink_to(folder)
    (tmp_path / "hard").mkdir()
    for file in folder.iterdir():
        (tmp_path / "hard" / file.name).hardlink_to(file)
    readers = [ShardReader(tmp_path / name) for name in ("split", "split", "link", "hard")]
    mapped = [reader.mapped(1) for reader in readers]
    assert len({bytes(record.image) for record in mapped}) == 1
    readers[0].close()
    assert bytes(mapped[1].image) == records(4)[1].image  # which the others still hold
    for reader in readers:
        reader.close()
    other = lmdb.open(str(folder / "00000.lmdb"), subdir=False, readonly=True, lock=False)
    with closing(other), pytest.raises(DataError, match="close what else has it open in this process"):
        readers[0].read(0)
    assert readers[0].read(1) == records(4)[1]
    del readers, mapped  # a reader that is not closed closes with its last name
    with lmdb.open(str(folder / "00000.lmdb"), subdir=False, readonly=True, lock=False):
        pass


def test_one_split_serves_several_loaders(tmp_path):
    write_wsld(tmp_path / "val", FILES)
    config = DataConfig(str(tmp_path), num_workers=0, input_size=8, val_resize=9, val_batch_size=4)
    loaders = [EvalLoader(open_split(config, "val", "lmdb"), config, 0, 1, torch.device("cpu")) for _ in range(2)]
    pairs = list(zip(*loaders))
    assert len(pairs) == 2
    assert all(torch.equal(first["labels"], second["labels"]) for first, second in pairs)


def test_shards_are_opened_once_for_all_loaders_of_a_process(tmp_path, monkeypatch):
    images = [[Record(f"{n}.JPEG", image_bytes(n), 0) for n in range(4 * shard, 4 * shard + 4)] for shard in range(2)]
    for split in ("train", "val"):
        write_split(tmp_path / split, *images)
    config = DataConfig(str(tmp_path), num_workers=0, input_size=8, val_resize=9, batch_size=4, val_batch_size=2)
    opened, opening = [], lmdb.open

    def counted(path, **options):
        opened.append(Path(path).relative_to(tmp_path).as_posix())
        return opening(path, **options)

    monkeypatch.setattr(lmdb, "open", counted)
    splits = [open_split(config, split, "lmdb") for split in ("train", "val", "train", "val")]
    scorers = [EvalLoader(samples, config, 0, 1, CPU) for samples in splits]
    loaders = [TrainLoader(samples, config, 0, 0, 1, CPU).epoch(0) for samples in splits[::2]]
    loaders += [iter(loader) for scorer in scorers for loader in (scorer, scorer.spread(3))]
    for batches in itertools.zip_longest(*loaders):  # all are at work at the same time
        assert any(batch is not None for batch in batches)
    assert sorted(opened) == [f"{split}/0000{shard}.lmdb" for split in ("train", "val") for shard in range(2)]
    for samples in splits:
        samples.close()
    gc.collect()
    assert open_files(tmp_path) == 0


@pytest.fixture
def few(monkeypatch):
    """At most four files may be open for a reader."""
    monkeypatch.setattr(resource, "getrlimit", lambda _: (48, 48))


def open_files(folder):
    """How many files below ``folder`` this process maps."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    return len({line.split()[-1] for line in lines if str(folder) in line})


def test_more_shards_than_may_be_open(tmp_path, few):
    shards = [records(2, seed) for seed in range(12)]
    reader = ShardReader(write_split(tmp_path / "split", *shards))
    written = [record for shard in shards for record in shard]
    order = np.random.default_rng(0).permutation(24).tolist()
    mapped = [reader.mapped(number) for number in order]
    assert open_files(tmp_path) == 4
    assert [bytes(record.image) for record in mapped] == [
        written[number].image for number in order
    ]  # none was pulled away
    reader.close()
    assert open_files(tmp_path) == 0
    wsld = tmp_path / "wsld"
    for number, (key, value) in enumerate(FILES.items()):
        write_wsld(wsld / f"patch_{number}", {key: value})
    with closing(WsldReader(wsld)) as samples:
        assert {samples.read(number).key for number in range(len(samples))} == set(FILES)
        assert open_files(wsld) == 4


def test_the_shards_used_longest_ago_are_closed(tmp_path, few):
    with closing(ShardReader(write_split(tmp_path / "split", *(records(1, seed) for seed in range(6))))) as reader:
        for number in (0, 1, 2, 3, 0, 4):
            reader.read(number)
        assert sorted(reader._files._open) == [0, 2, 3, 4]


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.EMFILE, "ulimit -n"),
        (errno.ENOMEM, "ulimit -v"),
        (errno.EACCES, "make it readable"),
        (errno.EIO, "the disk or the network"),
        (errno.EINVAL, "copy it again"),
    ],
)
@pytest.mark.parametrize("step", ["stat", "open"])
def test_the_advice_fits_the_error(tmp_path, monkeypatch, number, advice, step):
    folder = write_split(tmp_path / "split", records(1))
    reader = ShardReader(folder)

    def fail(*_, **__):
        raise (OSError(number, os.strerror(number)) if step == "stat" else lmdb.Error(f"x: {os.strerror(number)}"))

    monkeypatch.setattr(*((environments, "check_pages", fail) if step == "stat" else (lmdb, "open", fail)))
    with pytest.raises(DataError, match=rf"00000\.lmdb: .*{advice}"):
        reader.read(0)


def test_a_file_that_has_gone_is_named(tmp_path):
    with pytest.raises(DataError, match=r"absent\.lmdb: No such file or directory; mend"):
        Reading(tmp_path / "absent.lmdb", "mend")


def test_signals_are_noticed_by_these_tests():
    with pytest.raises(AssertionError, match="ended with -9"):
        without_a_signal(lambda: os.kill(os.getpid(), signal.SIGKILL))
