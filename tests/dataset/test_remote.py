"""Splits behind a URL: the same batches, a bounded cache, and clear errors."""

import functools
import http.server
import multiprocessing
import shutil
import signal
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import fsspec
import pytest
import torch
from dataset_helpers import image_tree, make_lists, pack_images

from dataset.loader import DataConfig, EvalLoader, TrainLoader, open_split
from dataset.store import remote
from dataset.store.remote import open_remote
from utils.errors import DataError, UsageError
from utils.files import lock

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """40 training images in 40 shards."""
    root = tmp_path_factory.mktemp("remote")
    image_tree(root / "images", classes=2, images=20)
    make_lists(root)
    pack_images(root, "--shard_mb", "0", "--shuffle")
    return root


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(remote, "_PAUSE", 0.01)


def configure(path, cache, **more):
    settings = {"batch_size": 4, "num_workers": 0, "input_size": 14, "val_resize": 16, "val_batch_size": 4}
    return DataConfig(str(path), cache_path=str(cache), **{**settings, **more})


def batches(config, epochs=(0,), evaluate=False):
    samples = open_split(config, "train", "lmdb")
    loader = EvalLoader(samples, config, 0, 1, CPU) if evaluate else TrainLoader(samples, config, 3, 0, 1, CPU)
    try:
        drawn = loader if evaluate else (batch for epoch in epochs for batch in loader.epoch(epoch))
        return [{name: tensor.clone() for name, tensor in batch.named.items()} for batch in drawn]
    finally:
        loader.close()
        samples.close()


def same(one, two):
    return len(one) == len(two) > 0 and all(
        torch.equal(a[name], b[name]) for a, b in zip(one, two, strict=True) for name in a
    )


@contextmanager
def served(folder):
    """An HTTP server of ``folder``; its address and what was asked for."""
    asked = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            if self.command == "GET":
                asked.append(self.path)

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=folder)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()


def cached_bytes(cache):
    with lock(Path(cache, ".lock"), wait=True):  # nothing comes or goes meanwhile
        return sum(path.stat().st_size for path in Path(cache).glob("*/*"))


def room_for(shards, folder):
    """Bytes of a cache for so many shards of a split."""
    beside = sum(path.stat().st_size for path in (folder / "index.json", *folder.glob("*.npz")))
    return beside + int(shards * max(path.stat().st_size for path in folder.glob("*.lmdb")))


@pytest.mark.parametrize("order", ["shuffle", "blocks"])
@pytest.mark.parametrize("workers", [0, 2])
def test_training_batches_are_those_of_the_local_split(root, tmp_path, order, workers):
    local = batches(configure(root / "lmdb", tmp_path, order=order, open_shards=3), (0, 1))
    url = f"file://{root / 'lmdb'}"
    config = configure(url, tmp_path / "cache", order=order, open_shards=3, num_workers=workers)
    assert same(batches(config, (0, 1)), local)


def test_evaluation_batches_are_those_of_the_local_split(root, tmp_path):
    local = batches(configure(root / "lmdb", tmp_path), evaluate=True)
    limit = room_for(2.5, root / "lmdb/train")
    small = configure(f"file://{root / 'lmdb'}", tmp_path / "cache", cache_gb=limit / 1e9)
    assert same(batches(small, evaluate=True), local)
    assert cached_bytes(tmp_path / "cache") <= limit


def test_a_web_server_and_memory_serve_as_well(root, tmp_path):
    local = batches(configure(root / "lmdb", tmp_path))
    with served(root / "lmdb") as (url, asked):
        assert same(batches(configure(url, tmp_path / "http", num_workers=2)), local)
        fetched = [path for path in asked if path.endswith(".lmdb")]
        assert len(set(fetched)) == 40
        asked.clear()
        assert same(batches(configure(url, tmp_path / "http", num_workers=2)), local)
        assert not [path for path in asked if path.endswith((".lmdb", ".npz"))]
    memory = fsspec.filesystem("memory")
    memory.put(str(root / "lmdb"), "/bucket/lmdb", recursive=True)
    assert same(batches(configure("memory://bucket/lmdb", tmp_path / "memory")), local)
    memory.rm("/bucket", recursive=True)


def test_the_cache_keeps_within_its_size(root, tmp_path, monkeypatch):
    limit, most = room_for(7, root / "lmdb/train"), 0
    make_room = remote.ShardCache._make_room

    def watched(*arguments):
        nonlocal most
        make_room(*arguments)
        most = max(most, cached_bytes(tmp_path / "cache"))

    monkeypatch.setattr(remote.ShardCache, "_make_room", watched)
    config = configure(
        f"file://{root / 'lmdb'}", tmp_path / "cache", order="blocks", open_shards=3, cache_gb=limit / 1e9
    )
    assert len(batches(config, (0, 1))) == 20
    assert room_for(3, root / "lmdb/train") < most <= limit


def test_another_split_in_the_same_cache_makes_space(root, tmp_path):
    limit = 2 * room_for(2.5, root / "lmdb/train")
    shutil.copytree(root / "lmdb", tmp_path / "copy")
    for url in (root / "lmdb", tmp_path / "copy"):
        split = open_remote(f"file://{url}/train", tmp_path / "cache", limit)
        for number in range(8):
            split.read(number)
        split.close()
        assert cached_bytes(tmp_path / "cache") <= limit
    assert len({path.parent for path in (tmp_path / "cache").glob("*/*.lmdb")}) == 1  # the first split's had to go


def read_all(url, cache, ready, done):
    split = open_remote(url, cache, 1 << 30)
    ready.wait()
    done.put([split.read(number).key for number in range(len(split))])


def test_processes_that_start_together_fetch_each_shard_once(root, tmp_path):
    context = multiprocessing.get_context("spawn")
    with served(root / "lmdb/train") as (url, asked):
        ready, done = context.Barrier(3), context.Queue()
        readers = [context.Process(target=read_all, args=(url, tmp_path, ready, done)) for _ in range(3)]
        for reader in readers:
            reader.start()
        keys = [done.get(timeout=240) for _ in readers]
        for reader in readers:
            reader.join()
    assert keys[0] == keys[1] == keys[2]
    fetched = [path for path in asked if path.endswith(".lmdb")]
    assert len(fetched) == len(set(fetched)) == 40


def fetch_slowly(url, cache, begun):
    split = open_remote(url, cache, 1 << 30)

    def slow(url, out, sha256):
        out.write(b"half")
        begun.set()
        time.sleep(600)

    remote._download = slow
    split.read(0)


def test_a_fetch_that_is_killed_is_done_again(root, tmp_path):
    context = multiprocessing.get_context("spawn")
    url, begun = f"file://{root / 'lmdb/train'}", context.Event()
    process = context.Process(target=fetch_slowly, args=(url, tmp_path, begun))
    process.start()
    assert begun.wait(240)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert len(list(tmp_path.glob("*/*.partial"))) == 1
    split = open_remote(url, tmp_path, room_for(1.5, root / "lmdb/train"))
    split.read(5)  # another shard: the space of the dead one is needed
    assert not list(tmp_path.glob("*/*.partial"))
    split.read(0)
    split.close()


def test_a_cached_shard_of_another_size_is_fetched_again(root, tmp_path):
    split = open_remote(f"file://{root / 'lmdb/train'}", tmp_path, 1 << 30)
    split.read(0)
    split.close()
    (shard,) = tmp_path.glob("*/*.lmdb")
    shard.write_bytes(shard.read_bytes()[:-4096])
    assert split.read(0).key == open_split(configure(root / "lmdb", tmp_path), "train", "lmdb").read(0).key
    split.close()


@pytest.mark.parametrize("file", ["00003.lmdb", "00003.columns.npz"])
def test_a_file_that_is_not_as_in_the_index_is_named(root, tmp_path, quick, file):
    shutil.copytree(root / "lmdb/train", tmp_path / "train")
    damaged = bytearray((tmp_path / "train" / file).read_bytes())
    damaged[len(damaged) // 2] ^= 1
    (tmp_path / "train" / file).write_bytes(damaged)
    with pytest.raises(DataError, match=rf"train/{file} is not what its index describes"):
        open_remote(f"file://{tmp_path}/train", tmp_path / "cache", 1 << 30).read(3)
    assert not list((tmp_path / "cache").glob("*/*.partial"))


def test_a_connection_that_fails_is_tried_again(root, tmp_path, quick, monkeypatch):
    failures = iter([OSError("reset by peer"), TimeoutError("too slow")])
    opened = fsspec.open

    def unreliable(url, mode):
        if url.endswith("00000.lmdb") and (failure := next(failures, None)):
            raise failure
        return opened(url, mode)

    monkeypatch.setattr(fsspec, "open", unreliable)
    split = open_remote(f"file://{root / 'lmdb/train'}", tmp_path, 1 << 30)
    split.read(0)
    split.close()
    failures = iter([OSError("reset by peer")] * 9)
    with pytest.raises(DataError, match=r"00000.lmdb cannot be fetched \(OSError: reset by peer\)"):
        open_remote(f"file://{root / 'lmdb/train'}", tmp_path / "other", 1 << 30).read(0)


def test_what_the_user_can_mend_is_printed(root, tmp_path, quick):
    def message(path, **more):
        config = configure(path, tmp_path / "cache", **more)
        with pytest.raises(UsageError) as error:
            TrainLoader(open_split(config, "train", "lmdb"), config, 0, 0, 1, CPU)
        return str(error.value)

    url = f"file://{root / 'lmdb'}"
    assert "no file:///nowhere/train/index.json" in message("file:///nowhere")
    assert "Protocol not known: gopher" in message("gopher://bucket")
    assert "raise it, or data.order=blocks" in message(url, cache_gb=1e-5)
    assert "lower data.open_shards" in message(url, cache_gb=1e-5, order="blocks", open_shards=4)
    with pytest.raises(UsageError, match="must be local"):
        open_split(configure(url, tmp_path), "train", "img")
    with pytest.raises(DataError, match=r"no space for the .* of 00000.lmdb; raise it"):
        open_remote(f"{url}/train", tmp_path / "tiny", room_for(0.9, root / "lmdb/train")).read(0)


@pytest.mark.parametrize(
    ("status", "error", "match"),
    [
        (403, UsageError, "may not be read"),
        (404, UsageError, "there is no http"),
        (503, DataError, "cannot be fetched"),
    ],
)
def test_the_answers_of_a_web_server_are_distinguished(tmp_path, quick, status, error, match):
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_error(status)

        do_HEAD = do_GET

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with pytest.raises(error, match=match):
            open_remote(f"http://127.0.0.1:{server.server_port}/train", tmp_path, 1 << 30)
        server.shutdown()


@pytest.mark.parametrize("workers", [0, 2])
def test_a_shard_that_is_gone_is_named_by_its_url(root, tmp_path, quick, workers):
    shutil.copytree(root / "lmdb", tmp_path / "copy")
    config = configure(f"file://{tmp_path}/copy", tmp_path / "cache", num_workers=workers)
    loader = TrainLoader(open_split(config, "train", "lmdb"), config, 3, 0, 1, CPU)
    (tmp_path / "copy/train/00007.lmdb").unlink()
    with pytest.raises(DataError, match=r"there is no file://.*/copy/train/00007.lmdb"):
        list(loader.epoch(0))
    loader.close()
