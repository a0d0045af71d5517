"""Splits as the packer writes them, and as WSLD's scripts do."""

import lmdb
import msgpack
import numpy as np
from dataset_helpers import image_bytes

from dataset.store.index import Index, describe
from dataset.store.record import Record
from dataset.store.writer import ShardWriter

FILES = {
    f"n{label:02d}/{number}.JPEG": (image_bytes(10 * label + number), label) for label in (0, 1, 3) for number in (1, 2)
}


def write_wsld(folder, files, **options):
    """As WSLD packs: msgpack of the JPEG bytes and the label as uint16."""
    folder.mkdir(parents=True, exist_ok=True)
    with lmdb.open(str(folder), map_size=1 << 24) as environment, environment.begin(write=True) as transaction:
        for key, (image, label) in files.items():
            value = msgpack.packb(image + np.uint16(label).tobytes(), **options)
            transaction.put(key.encode(), value)
    return folder


def write_patched(folder, files):
    rows = list(files.items())
    for number in range(3):
        write_wsld(folder / f"patch_{number}", dict(rows[number::3]))
    return folder


def records(count, seed=0, size=300, target=lambda number: number % 3):
    generator = np.random.default_rng(seed)
    return [Record(f"{seed}/{number}", generator.bytes(size), target(number)) for number in range(count)]


def write_split(folder, *shards, target="single", classes=("a", "b", "c"), map_bytes=1 << 20):
    """A finished split of the given shards; image n of a shard counts as (n + 1) x 2 pixels."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for number, shard in enumerate(shards):
        path = folder / f"{number:05d}.lmdb"
        with ShardWriter(path, map_bytes) as writer:
            for row, record in enumerate(shard):
                writer.add(record, row + 1, 2)
            rows.append(describe(path, writer.finish()))
    Index("train", target, classes, sum(map(len, shards)), tuple(rows)).write(folder)
    return folder
