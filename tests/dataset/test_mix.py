"""Mixup and cutmix: pixels, shares, labels, and who may see them."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from dataset import DataConfig, TrainLoader, open_split
from dataset.feed.augment import mix, neighbours
from objectives.labels import cross_entropy
from utils.errors import UsageError


def draws(count, seed=0):
    return np.random.default_rng(seed).random((count, 4))


def photos(size=6, side=12):
    return torch.randint(0, 256, (size, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_mixup_blends_each_image_with_its_neighbour():
    images = photos()
    mixed, share = mix(images, draws(6), 0.4, 0.0)
    other = images[[1, 0, 3, 2, 5, 4]]
    assert neighbours(torch.arange(6)).tolist() == [1, 0, 3, 2, 5, 4]
    assert ((share > 0) & (share < 1)).all()
    assert len(share.unique()) == 6  # each has its own
    expected = torch.lerp(images.float(), other.float(), share[:, None, None, None])
    assert (mixed.float() - expected).abs().max() <= 0.5 + 1e-3
    assert mixed.dtype == torch.uint8


@pytest.mark.parametrize("seed", range(20))
def test_cutmix_copies_a_box_of_just_its_share(seed):
    images = torch.zeros(4, 3, 12, 16, dtype=torch.uint8) + torch.arange(4, dtype=torch.uint8)[:, None, None, None]
    mixed, share = mix(images, draws(4, seed), 0.0, 1.0)
    for number in range(4):
        copied = mixed[number, 0] == number ^ 1
        assert copied.float().mean() == share[number]
        rows, columns = copied.any(1).nonzero(), copied.any(0).nonzero()
        assert len(rows) * len(columns) == copied.sum()  # one box
        assert torch.equal(mixed[number, 0], mixed[number, 2])
    assert torch.equal(images[:, 0, 0, 0], torch.arange(4, dtype=torch.uint8))  # the loader's memory is left alone


@pytest.mark.parametrize("alpha", [0.2, 1.0, 3.0])
def test_shares_follow_the_beta_distribution(alpha):
    shares = mix(photos(4000, 2), draws(4000), alpha, 0.0)[1].numpy()
    assert shares.mean() == pytest.approx(0.5, abs=0.02)
    assert shares.var() == pytest.approx(0.25 / (2 * alpha + 1), abs=0.01)


def test_with_both_each_image_has_one_of_them():
    images = photos(200)
    mixed = mix(images, draws(200), 1.0, 1.0)[0]
    cuts = ((mixed == images) | (mixed == neighbours(images))).flatten(1).all(1).sum()
    assert 60 < cuts < 140


def test_what_a_sample_shows_does_not_depend_on_the_batch_size(digits):
    seen = []
    for size in (4, 20):
        settings = {"batch_size": size, "num_workers": 0, "input_size": 8, "mixup": 0.8, "cutmix": 1.0}
        config = DataConfig(str(digits / "lmdb"), **settings)
        loader = TrainLoader(open_split(config, "train", "lmdb"), config, 0, 0, 1, torch.device("cpu"))
        batches = [{name: value.clone() for name, value in batch.named.items()} for batch in loader.epoch(2)]
        seen.append({name: torch.cat([batch[name] for batch in batches]) for name in batches[0]})
        loader.close()
    assert all(torch.equal(seen[0][name], seen[1][name]) for name in seen[0])


def test_pairs_need_an_even_number_of_images(digits):
    config = DataConfig(str(digits / "lmdb"), batch_size=20, mixup=0.8)
    samples = open_split(config, "train", "lmdb")
    with pytest.raises(UsageError, match=r"data\.batch_size=20 must give each of 4 ranks an even number of images"):
        TrainLoader(samples, config, 0, 0, 4, torch.device("cpu"))


def test_cross_entropy_of_two_labels_is_weighted_by_their_shares():
    logits, labels, other = torch.randn(5, 4), torch.tensor([0, 1, 2, 3, 0]), torch.tensor([3, 3, 2, 1, 1])
    share = torch.tensor([0.0, 0.25, 0.5, 1.0, 0.1])
    soft = F.one_hot(labels, 4) * (1 - share)[:, None] + F.one_hot(other, 4) * share[:, None]
    torch.testing.assert_close(cross_entropy(logits, labels, other, share), F.cross_entropy(logits, soft))
    smoothed = cross_entropy(logits, labels, other, share, label_smoothing=0.1)
    torch.testing.assert_close(smoothed, F.cross_entropy(logits, soft, label_smoothing=0.1))


def test_an_objective_of_one_label_is_refused(digits, tmp_path, train):
    words = [f"data.data_path={digits / 'lmdb'}", f"train_params.output_path={tmp_path}", "data.mixup=0.2"]
    config = [
        "--cfg",
        "configs/cifar100.py",
        "method=dkd",
        "teacher=resnet8",
        "student=resnet8",
        "teachers.teacher.weights=none",
    ]
    words.append("teachers.teacher.expect=0")
    done = train(*config, *words, code=2)
    assert "terms.dkd: dkd knows one label an image; set data.mixup=0 data.cutmix=0" in done.stderr
    config[2] = "method=kd"
    sizes = ["data.batch_size=40", "train_params.epochs=1", "data.num_workers=0"]
    train(*config, *words, *sizes, "data.input_size=16", "data.val_resize=16")
