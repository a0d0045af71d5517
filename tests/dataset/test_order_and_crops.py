"""Which samples a rank sees, where each is cropped, and what is done to its pixels."""

import numpy as np
import pytest
import torch
from dataset_helpers import examples, pixels
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ks_2samp, kstest
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from dataset.feed.augment import color_jitter
from dataset.feed.crops import jitter_factors, random_resized_crop, random_scale_crop, uniform
from dataset.feed.order import epoch_order, evaluation_batches, shard_groups, training_batches

seeds = st.integers(0, 2**63 - 1)
epochs = st.integers(0, 1000)
sides = st.one_of(st.integers(1, 20), st.integers(1, 5000))
sizes = st.lists(st.tuples(sides, sides), min_size=1, max_size=30).map(np.array)


@examples(40)
@given(seeds, epochs, st.integers(0, 500))
def test_an_epoch_is_a_permutation_of_its_own(seed, epoch, samples):
    order = epoch_order(seed, epoch, [samples])
    assert sorted(order) == list(range(samples))
    assert (order == epoch_order(seed, epoch, [samples])).all()
    if samples > 20:
        assert not np.array_equal(order, epoch_order(seed, epoch + 1, [samples]))
        assert not np.array_equal(order, epoch_order(seed + 1, epoch, [samples]))


@examples(60)
@given(seeds, epochs, st.lists(st.integers(0, 900), max_size=12), st.integers(1, 5))
def test_blocks_need_a_few_shards_and_a_few_runs_at_a_time(seed, epoch, shards, open_shards):
    order = epoch_order(seed, epoch, shards, "blocks", open_shards)
    assert sorted(order) == list(range(sum(shards)))
    starts = np.cumsum([0, *shards])
    groups = shard_groups(seed, epoch, len(shards), open_shards)
    assert sorted(shard for group in groups for shard in group) == list(range(len(shards)))
    assert all(len(group) == open_shards for group in groups[:-1])
    at = 0
    for group in groups:  # the samples of a group come before those of the next
        count = sum(shards[shard] for shard in group)
        expected = [sample for shard in group for sample in range(starts[shard], starts[shard + 1])]
        assert sorted(order[at : at + count]) == sorted(expected)
        at += count


def test_blocks_read_long_stretches():
    shards = [400_000] * 3
    order = epoch_order(7, 2, shards, "blocks", 2)
    window = 64 * 256
    for start in range(0, 800_000 - window, window):  # of the first group
        part = order[start : start + window]
        assert len(np.unique(part // 256)) <= 4 * 64  # of 3,125: parts of two windows, a run lies in two
        assert (np.diff(part) == 1).mean() < 0.01  # in random order
        assert 0.2 < (part // 400_000 == part[0] // 400_000).mean() < 0.8  # from both shards


def test_runs_begin_elsewhere_in_each_epoch():
    shards = [64 * 256 * 4]
    first = [np.sort(epoch_order(0, epoch, shards, "blocks")[: 63 * 256]) for epoch in range(4)]
    offsets = {tuple(sorted(part[1:][np.diff(part) > 64] % 256))[:8] for part in first}
    assert len(offsets) == 4


@examples(40)
@given(seeds, epochs, st.integers(0, 300), st.sampled_from([4, 8, 24]))
def test_ranks_share_the_same_global_batches(seed, epoch, samples, batch_size):
    whole = [batch.tolist() for batch in training_batches(epoch_order(seed, epoch, [samples]), batch_size, 0, 1)]
    assert len(whole) == samples // batch_size
    seen = [sample for batch in whole for sample in batch]
    assert len(set(seen)) == len(seen) == samples // batch_size * batch_size
    assert set(seen) <= set(range(samples))
    for world in (2, 4):
        ranks = [
            training_batches(epoch_order(seed, epoch, [samples]), batch_size, rank, world) for rank in range(world)
        ]
        assert [np.concatenate(parts).tolist() for parts in zip(*ranks, strict=True)] == whole


@examples(40)
@given(seeds, st.integers(0, 200), st.integers(0, 30), st.sampled_from([1, 2, 4]))
def test_beginning_at_a_batch_is_skipping_those_before(seed, samples, first, world):
    whole = [batch.tolist() for batch in training_batches(epoch_order(seed, 3, [samples]), 8, world - 1, world)]
    assert [
        batch.tolist() for batch in training_batches(epoch_order(seed, 3, [samples]), 8, world - 1, world, first)
    ] == whole[first:]


def test_samples_that_sit_out_change_with_the_epoch():
    absent = [
        set(range(10)) - set(np.concatenate(list(training_batches(epoch_order(0, epoch, [10]), 4, 0, 1))))
        for epoch in range(50)
    ]
    assert all(len(two) == 2 for two in absent)
    assert set.union(*absent) == set(range(10))


@examples(60)
@given(st.integers(0, 200), st.integers(1, 9), st.integers(1, 5))
def test_evaluation_sees_every_sample_once(samples, batch_size, world):
    batches = [
        batch for rank in range(world) for batch in evaluation_batches(np.ones((samples, 2)), batch_size, rank, world)
    ]
    assert sorted(sample for batch in batches for sample in batch) == list(range(samples))
    assert all(0 < len(batch) <= batch_size for batch in batches)


@examples(60)
@given(seeds, epochs, st.lists(st.integers(0, 2**40), min_size=1, max_size=20))
def test_numbers_are_a_pure_function_of_each_sample(seed, epoch, index):
    index = np.array(index)
    numbers = uniform(seed, epoch, index, 7)
    assert ((numbers >= 0) & (numbers < 1)).all()
    assert np.array_equal(
        numbers, np.concatenate([uniform(seed, epoch, one, 7) for one in np.split(index, len(index))])
    )
    assert np.array_equal(numbers[:, :3], uniform(seed, epoch, index, 3))


def test_numbers_are_those_of_earlier_versions():
    numbers = uniform(5, 3, np.array([0, 1, 10**6]), 2)
    assert numbers.round(9).tolist() == [
        [0.907004505, 0.431374592],
        [0.477981974, 0.987109919],
        [0.280531512, 0.921314131],
    ]


@pytest.mark.parametrize("seed", [0, 1, 2**62])
def test_numbers_are_uniform(seed):
    numbers = uniform(seed, 0, np.arange(20_000), 4)
    for column in numbers.T:
        assert kstest(column, "uniform").pvalue > 1e-3
    assert kstest(numbers.ravel(), "uniform").pvalue > 1e-3


def test_neighbouring_streams_are_uncorrelated():
    index = np.arange(20_000)
    base = uniform(7, 4, index, 3)
    others = {
        "epoch": uniform(7, 5, index, 3),
        "seed": uniform(8, 4, index, 3),
        "index": uniform(7, 4, index + 1, 3),
        "draw": np.roll(base, 1, axis=1),
        "seed and epoch": uniform(8, 3, index, 3),
    }
    for name, other in others.items():
        for column, second in zip(base.T, other.T, strict=True):
            assert abs(np.corrcoef(column, second)[0, 1]) < 5 / np.sqrt(len(index)), name


def inside(windows, sizes):
    top, left, height, width = windows.T
    assert (windows >= 0).all()
    assert (height >= 1).all()
    assert (width >= 1).all()
    assert (top + height <= sizes[:, 0]).all()
    assert (left + width <= sizes[:, 1]).all()


ranges = st.tuples(st.floats(0.05, 5), st.floats(0.05, 5)).map(lambda pair: (min(pair), max(pair)))


@examples(150)
@given(sizes, seeds, ranges)
def test_resized_crops_lie_inside(sizes, seed, ratio):
    numbers = uniform(seed, 0, np.arange(len(sizes)), 40)
    for scale in ((0.08, 1.0), (1.0, 1.0), (1e-6, 1e-6)):
        inside(random_resized_crop(numbers, sizes, scale, ratio), sizes)


@examples(100)
@given(sizes, seeds)
def test_scale_crops_lie_inside_and_are_square(sizes, seed):
    numbers = uniform(seed, 0, np.arange(len(sizes)), 3)
    for sides, crop in (((256, 480), 224), ((100, 100), 224), ((1, 5000), 7)):
        windows = random_scale_crop(numbers, sizes, sides, crop)
        inside(windows, sizes)
        assert (windows[:, 2] == windows[:, 3]).all()


EDGES = np.array([0.0, np.nextafter(1, 0)])


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1), (375, 500), (4096, 4095)])
def test_windows_at_the_ends_of_the_draws_lie_inside(size):
    sizes = np.repeat([size], 2, axis=0)
    inside(random_resized_crop(np.repeat(EDGES[:, None], 40, 1), sizes, (0.08, 1.0), (3 / 4, 4 / 3)), sizes)
    inside(random_scale_crop(np.repeat(EDGES[:, None], 3, 1), sizes, (256, 480), 224), sizes)


def test_a_window_depends_on_no_other_sample():
    sizes = np.array([[30, 40], [500, 375], [1, 5000], [333, 500]])
    numbers = uniform(0, 0, np.arange(4), 40)
    together = random_resized_crop(numbers, sizes, (0.08, 1.0), (3 / 4, 4 / 3))
    for row in range(4):
        alone = random_resized_crop(numbers[row : row + 1], sizes[row : row + 1], (0.08, 1.0), (3 / 4, 4 / 3))
        assert np.array_equal(alone[0], together[row])


@pytest.mark.parametrize("size", [(375, 500), (500, 333), (64, 512)])
def test_resized_crops_are_distributed_as_torchvisions(size):
    count, scale, ratio = 4000, (0.08, 1.0), (3 / 4, 4 / 3)
    sizes = np.repeat([size], count, axis=0)
    ours = random_resized_crop(uniform(11, 0, np.arange(count), 40), sizes, scale, ratio)
    torch.manual_seed(11)
    transform, image = v2.RandomResizedCrop(224, scale, ratio), torch.empty(3, *size)
    drawn = [transform.make_params([image]) for _ in range(count)]
    theirs = np.array([[view[name] for name in ("top", "left", "height", "width")] for view in drawn])
    for measure in (
        lambda view: view[:, 2] * view[:, 3],
        lambda view: np.log(view[:, 3] / view[:, 2]),
        lambda view: view[:, 0] / (size[0] - view[:, 2] + 1),
        lambda view: view[:, 1] / (size[1] - view[:, 3] + 1),
    ):
        assert ks_2samp(measure(ours), measure(theirs)).pvalue > 1e-3
    if size[0] > 64:
        area, shape = ours[:, 2] * ours[:, 3] / (size[0] * size[1]), ours[:, 3] / ours[:, 2]
        assert area.min() >= scale[0] * 0.98
        assert area.max() <= scale[1]
        assert shape.min() >= ratio[0] * 0.98
        assert shape.max() <= ratio[1] * 1.02


@pytest.mark.parametrize("size", [(1, 5000), (5000, 1), (10, 400), (400, 10)])
def test_an_image_that_no_window_fits_is_cut_at_its_centre_as_torchvisions(size):
    ours = random_resized_crop(uniform(0, 0, np.arange(1), 40), np.array([size]), (1.0, 1.0), (3 / 4, 4 / 3))
    view = v2.RandomResizedCrop(224, (1.0, 1.0), (3 / 4, 4 / 3)).make_params([torch.empty(3, *size)])
    assert ours[0].tolist() == [view[name] for name in ("top", "left", "height", "width")]


def test_scale_crops_have_the_size_of_a_resize_and_a_crop():
    sizes = np.repeat([[600, 800]], 3000, axis=0)
    windows = random_scale_crop(uniform(1, 0, np.arange(3000), 3), sizes, (256, 480), 224)
    side = windows[:, 2]
    assert side.min() == round(600 * 224 / 480)
    assert side.max() == round(600 * 224 / 256)
    assert kstest((600 * 224 / side - 256) / (480 - 256), "uniform").pvalue > 1e-3
    for axis, length in enumerate((600, 800)):
        place = windows[:, axis] / (length - side)
        assert kstest(place, "uniform").pvalue > 1e-3


@pytest.mark.parametrize(("strength", "low", "high"), [(0.4, 0.6, 1.4), (1.5, 0.0, 2.5), (0.0, 1.0, 1.0)])
def test_jitter_factors_span_their_range(strength, low, high):
    factors = jitter_factors(uniform(0, 0, np.arange(5000), 3), strength)
    assert factors.dtype == np.float32
    assert factors.shape == (5000, 3)
    assert factors.min() == pytest.approx(low, abs=2e-3)
    assert factors.max() == pytest.approx(high, abs=2e-3)
    assert factors.min() >= np.float32(low)
    assert factors.max() <= np.float32(high)


def batch(count=6):
    return torch.stack([torch.from_numpy(pixels(number, 20, 30)).permute(2, 0, 1) for number in range(count)])


@pytest.mark.parametrize("place", [0, 1, 2, None])
def test_color_jitter_blends_as_torchvision(place):
    images = batch()
    factors = torch.rand(6, 3, generator=torch.Generator().manual_seed(0)) * 0.8 + 0.6
    if place is not None:
        factors[:, [axis for axis in range(3) if axis != place]] = 1
    ours = color_jitter(images, factors)
    assert ours.dtype == torch.uint8
    changed = 0
    for image, row, result in zip(images, factors.tolist(), ours, strict=True):
        expected = functional.adjust_brightness(image / 255, row[0])
        expected = functional.adjust_contrast(expected, row[1])
        expected = functional.adjust_saturation(expected, row[2]) * 255
        assert (result - expected).abs().max() <= 1
        changed += (result != image).any().item()
    assert changed == 6


def test_color_jitter_with_factors_of_one_changes_nothing():
    images = batch()
    assert torch.equal(color_jitter(images, torch.ones(6, 3)), images)
