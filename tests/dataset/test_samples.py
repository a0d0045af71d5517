"""The base class of samples: what those know who say nothing, and what tells one split from another."""

import hashlib
import itertools

import numpy as np
import pytest
from dataset_helpers import image_tree
from splits import FILES, records, write_split, write_wsld

from dataset import Record, Samples
from dataset.store.folder import ImageFolder
from dataset.store.index import Index
from dataset.store.reader import ShardReader
from dataset.store.wsld import WsldReader
from training.facts import facts_of


class Own(Samples):
    """Samples that say as little as they may."""

    classes = ("a", "b")
    labels = np.array([0, 1, 1])

    def __len__(self):
        return 3

    def read(self, index):
        return Record(f"{index}", b"image", int(self.labels[index]))


def test_what_need_not_be_defined():
    samples = Own()
    assert samples.mapped(1) == samples.read(1)
    assert (samples.sizes, list(samples.remarks), samples.keys(), samples.packed) == (None, [], [], None)
    assert (samples.shards, samples.describe(2)) == ([3], "sample 2")
    samples.check(0)
    samples.prepare(None)
    batches = [np.array([0, 2]), np.array([1])]
    assert list(samples.reading([[0]], iter(batches))) == batches
    samples.close()


def test_what_must_be_defined():
    class Silent(Samples):
        classes, labels = ("a",), np.zeros(1)

    with pytest.raises(TypeError, match="abstract"):
        Silent()


@pytest.fixture
def splits(tmp_path):
    image_tree(tmp_path / "images")
    packed = ShardReader(write_split(tmp_path / "split", records(3), records(2, 1)))
    return [packed, WsldReader(write_wsld(tmp_path / "wsld", FILES)), ImageFolder(tmp_path / "images", "train"), Own()]


def test_a_digest_is_of_labels_and_content(splits, tmp_path):
    """As runs of before wrote it down: they compare it when they are resumed."""
    packed, *others = splits
    digest = hashlib.sha256(packed.labels.astype(np.int64).tobytes())
    for shard in Index.read(tmp_path / "split").shards:
        digest.update(f"{shard.records} {shard.sha256} {shard.columns_sha256}\n".encode())
    assert packed.digest() == digest.hexdigest()
    for samples in others:
        digest = hashlib.sha256(samples.labels.astype(np.int64).tobytes())
        digest.update("\n".join(samples.keys()).encode(errors="surrogateescape"))
        assert samples.digest() == digest.hexdigest()
    facts = facts_of({"train": others[-1]}, {}, {})["data"]["train"]
    assert facts == {"classes": ["a", "b"], "images": 3, "sha256": others[-1].digest()}


def test_every_kind_has_its_shards_and_keys(splits):
    assert [samples.shards for samples in splits] == [[3, 2], [6], [6], [3]]
    for samples in splits[:3]:
        assert [samples.read(index).key for index in range(len(samples))] == samples.keys()
        assert samples.mapped(1).key == samples.keys()[1]
        samples.check(1)
        samples.close()
    for one, other in itertools.combinations(splits, 2):
        assert one.digest() != other.digest()


def test_only_few_shards_at_a_time_are_read_ahead(splits):
    packed = splits[0]
    for open_shards, ahead in ((None, False), (16, True)):
        packed.prepare(open_shards)
        assert packed._readahead is ahead
