"""Mixup and cutmix: pixels, shares, labels, and who may see them."""

import numpy as np
import pytest
import torch
from conftest import call
from torch.nn import functional as F

from dataset import DataConfig, TrainLoader, open_split
from dataset.feed.augment import mix
from objectives.labels import cross_entropy


def draws(seed):
    return np.random.Generator(np.random.Philox(key=[seed, 0]))


def batch(size=6, side=12):
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (size, 3, side, side), dtype=torch.uint8, generator=generator)
    return images, torch.arange(size)


def test_mixup_blends_each_image_with_its_partner():
    images, labels = batch()
    mixed, other, share = mix(images, labels, 0.4, 0.0, draws(1))
    assert other.tolist() == [5, 4, 3, 2, 1, 0]
    assert 0 < share[0] < 1
    assert (share == share[0]).all()
    expected = (1 - share[0]) * images.float() + share[0] * images.flip(0).float()
    assert (mixed.float() - expected).abs().max() <= 0.5 + 1e-3
    assert mixed.dtype == torch.uint8


@pytest.mark.parametrize("seed", range(20))
def test_cutmix_copies_a_box_of_just_its_share(seed):
    images, labels = torch.zeros(4, 3, 12, 16, dtype=torch.uint8), torch.arange(4)
    images += torch.arange(4, dtype=torch.uint8)[:, None, None, None]
    mixed, other, share = mix(images, labels, 0.0, 1.0, draws(seed))
    for number in range(4):
        copied = mixed[number, 0] == other[number]
        assert copied.float().mean() == share[number]
        rows, columns = copied.any(1).nonzero(), copied.any(0).nonzero()
        assert len(rows) * len(columns) == copied.sum()  # one box
        assert torch.equal(mixed[number, 0], mixed[number, 2])
    assert torch.equal(images[:, 0, 0, 0], labels.to(torch.uint8))  # the loader's memory is left alone


def test_shares_follow_the_beta_distribution():
    images, labels = batch(2, 2)
    shares = np.array([float(mix(images, labels, 0.2, 0.0, draws(seed))[2][0]) for seed in range(4000)])
    assert shares.mean() == pytest.approx(0.5, abs=0.02)
    assert shares.var() == pytest.approx(0.25 / 1.4, abs=0.01)  # of Beta(a, a): 1 / (4 (2 a + 1))


def test_with_both_a_coin_is_tossed():
    images, labels = batch()
    mixed = [mix(images, labels, 1.0, 1.0, draws(seed))[0] for seed in range(60)]
    cuts = sum(bool(((one == images) | (one == images.flip(0))).all()) for one in mixed)
    assert 15 < cuts < 45


def test_cross_entropy_of_two_labels_is_weighted_by_their_shares():
    logits, labels, other = torch.randn(5, 4), torch.tensor([0, 1, 2, 3, 0]), torch.tensor([3, 3, 2, 1, 1])
    share = torch.tensor([0.0, 0.25, 0.5, 1.0, 0.1])
    soft = F.one_hot(labels, 4) * (1 - share)[:, None] + F.one_hot(other, 4) * share[:, None]
    torch.testing.assert_close(cross_entropy(logits, labels, other, share), F.cross_entropy(logits, soft))
    smoothed = cross_entropy(logits, labels, other, share, label_smoothing=0.1)
    torch.testing.assert_close(smoothed, F.cross_entropy(logits, soft, label_smoothing=0.1))


def test_mixed_batches_come_again_after_a_resume(digits):
    config = DataConfig(str(digits / "lmdb"), batch_size=20, num_workers=0, input_size=8, mixup=0.8, cutmix=1.0)
    loader = TrainLoader(open_split(config, "train", "lmdb"), config, 0, 0, 1, torch.device("cpu"))
    whole = [{name: value.clone() for name, value in batch.items()} for batch in loader.epoch(3)]
    rest = [{name: value.clone() for name, value in batch.items()} for batch in loader.epoch(3, first=4)]
    assert len({float(batch["other_share"][0]) for batch in whole}) > 3
    for one, other in zip(whole[4:], rest, strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_an_objective_of_one_label_is_refused(digits, tmp_path):
    words = [f"data.data_path={digits / 'lmdb'}", f"train_params.output_path={tmp_path}", "data.mixup=0.2"]
    page = [
        "--cfg",
        "configs/cifar100.py",
        "method=dkd",
        "teacher=resnet8",
        "student=resnet8",
        "teachers.teacher.weights=none",
    ]
    words.append("teachers.teacher.expect_top1=0")
    done = call("train_with_distillation.py", *page, *words, code=2)
    assert "terms.dkd: dkd knows one label an image; set data.mixup=0 data.cutmix=0" in done.stderr
    page[2] = "method=kd"
    sizes = ["data.batch_size=40", "train_params.epochs=1", "data.num_workers=0"]
    call("train_with_distillation.py", *page, *words, *sizes, "data.input_size=16", "data.val_resize=16")
