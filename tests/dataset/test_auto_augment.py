"""RandAugment, TrivialAugment, erased boxes and repeated samples of the main view."""

import numpy as np
import pytest
import torch
from dataset_helpers import examples, image_tree, pixels
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kstest
from torchvision.transforms import v2

from dataset.config import DataConfig
from dataset.feed.augment import _SHAPES, _erased, erase
from dataset.feed.auto_augment import _SPACES, auto_augment
from dataset.feed.crops import AUTO_AUGMENT, ERASE, uniform
from dataset.feed.order import epoch_order, repeated, training_batches
from dataset.loader import TrainLoader, open_split
from utils.errors import UsageError

CPU = torch.device("cpu")
TORCHVISION = {"ra": v2.RandAugment(), "ta_wide": v2.TrivialAugmentWide()}


def photos(count=6, height=40, width=48):
    images = torch.from_numpy(np.stack([pixels(number, height, width) for number in range(count)])).permute(0, 3, 1, 2)
    images[-1, :, : height // 2] = 90  # gray, and flat
    return images


def drawn(count, columns, seed=0):
    return uniform(seed, 0, np.arange(count), ERASE.stop)[:, columns]


@pytest.mark.parametrize("kind", TORCHVISION)
@pytest.mark.parametrize("number", range(14))
def test_each_operation_is_that_of_torchvision(kind, number):
    transform, operation, images = TORCHVISION[kind], _SPACES[kind][number], photos()
    name, (spaced, signed) = [*transform._AUGMENTATION_SPACE.items()][number]
    magnitudes = spaced(31, *images.shape[2:])
    for level in (0, 4, 9, 23, 30):
        for side in (1, -1) if signed else (1,):
            value = operation.value(np.array([level / 30]), np.array([float(side)]))
            magnitude = 0.0 if magnitudes is None else side * float(magnitudes[level])
            ours = float(value[0])
            if name in ("Brightness", "Color", "Contrast", "Sharpness"):
                ours -= 1
            elif name == "Solarize":
                ours /= 255
            elif name.startswith("Translate") and kind == "ra":
                ours *= images.shape[3 if name.endswith("X") else 2]
            if magnitudes is not None:
                assert ours == pytest.approx(magnitude, abs=1e-5)
            how = {"interpolation": transform.interpolation, "fill": transform._fill}
            expected = transform._apply_image_or_video_transform(images, name, ours, **how)
            many = np.repeat(value, len(images))
            for layout in (torch.contiguous_format, torch.channels_last):
                assert torch.equal(operation.apply(images.contiguous(memory_format=layout), many), expected), ours


@pytest.mark.parametrize("number", range(20))
def test_each_operation_of_timm_is_that_of_timm(number):
    timm = pytest.importorskip("timm.data.auto_augment")
    from PIL import Image

    names = "ShearX ShearY TranslateXRel TranslateYRel Rotate AutoContrast Equalize Invert BrightnessIncreasing"
    names += (
        " ColorIncreasing ContrastIncreasing SharpnessIncreasing PosterizeIncreasing SolarizeIncreasing SolarizeAdd"
    )
    assert sorted(names.split()) == sorted(timm._RAND_INCREASING_TRANSFORMS)
    name, moves = names.split()[number % 15], number < 5 or number >= 15
    how = {"resample": Image.BICUBIC if number >= 15 else Image.BILINEAR, "fillcolor": (124, 116, 104)}
    images = photos(4)
    for level in (2.6, 9.0):
        value = _SPACES["ra_timm"][number].value(np.array([level / 10]), np.array([1.0]))
        arguments = timm.LEVEL_TO_ARG[name](level, {}) if timm.LEVEL_TO_ARG[name] else ()
        if arguments:
            plain = 1 if name.startswith(("Bright", "Color", "Contrast", "Sharp")) else 0  # changes nothing
            assert abs(value[0] - plain) == pytest.approx(abs(arguments[0] - plain))
        given = [type(one)(-value[0] if name.startswith("Translate") else value[0]) for one in arguments]
        ours = _SPACES["ra_timm"][number].apply(images, np.repeat(value, len(images)))
        for one, mine in zip(images, ours, strict=True):
            image = Image.fromarray(one.permute(1, 2, 0).contiguous().numpy())
            theirs = np.asarray(timm.NAME_TO_OP[name](image, *given, **how)).astype(int)
            difference = np.abs(mine.permute(1, 2, 0).numpy().astype(int) - theirs)
            if moves:  # edges of the picture, and bicubic weights, are others
                assert (difference.max(2) > 24).mean() < 0.09, (name, level)
            else:
                assert difference.max() <= 2, (name, level)


@pytest.mark.parametrize("kind", _SPACES)
def test_an_image_is_distorted_by_its_own_draws_alone(kind):
    images, draws = photos(1).expand(600, -1, -1, -1), drawn(600, AUTO_AUGMENT)
    result = auto_augment(images, draws, kind, 9, 0.5)
    for row in (0, 7, 599):
        assert torch.equal(result[row], auto_augment(images[:1], draws[row : row + 1], kind, 9, 0.5)[0])
    same = (result == images).flatten(1).all(1).double().mean()
    low, high = {"ra": (0.001, 0.12), "ta_wide": (1 / 14, 0.3), "ra_timm": (0.25, 0.34)}[kind]  # some change nothing
    assert low <= same <= high


def test_strengths_of_timm_are_normal_around_the_magnitude(monkeypatch):
    seen = []
    turned = _SPACES["ra_timm"][4]
    watched = turned._replace(value=lambda level, side: (seen.append(10 * level), turned.value(level, side))[1])
    monkeypatch.setitem(_SPACES, "ra_timm", (*_SPACES["ra_timm"][:4], watched, *_SPACES["ra_timm"][5:]))
    auto_augment(photos(1).expand(9000, -1, -1, -1)[:, :, :4, :4], drawn(9000, AUTO_AUGMENT), "ra_timm", 5, 0.5)
    levels = np.concatenate(seen)
    assert len(levels) > 300
    assert kstest((levels - 5) / 0.5, "norm").pvalue > 0.01


def test_boxes_are_erased_as_torchvision_draws_them():
    boxes = _erased(drawn(4000, ERASE)[:, 1:41], 40, 60)
    tall, wide = boxes[1] - boxes[0], boxes[3] - boxes[2]
    assert (boxes >= 0).all()
    assert (boxes[1::2] <= [[40], [60]]).all()
    torch.manual_seed(0)
    transform, image = v2.RandomErasing(p=1), torch.zeros(3, 40, 60)
    theirs = [transform.make_params([image]) for _ in range(4000)]
    theirs = np.array([(one["h"], one["w"], one["i"], one["j"]) for one in theirs if one["v"] is not None])
    for ours, other in zip((tall, wide, boxes[0], boxes[2]), theirs.T, strict=True):
        assert ours.mean() == pytest.approx(other.mean(), abs=0.35)
        assert ours.std() == pytest.approx(other.std(), abs=0.35)
    assert transform.ratio == _SHAPES


@pytest.mark.parametrize("mode", ["const", "rand", "pixel"])
def test_a_share_of_the_images_loses_a_box(mode):
    images, draws = torch.full((2000, 3, 16, 16), 7, dtype=torch.uint8), drawn(2000, ERASE, seed=4)
    erased = erase(images, draws, 0.25, mode)
    changed = (erased != 7).any(1)  # [B, H, W]
    assert changed.flatten(1).any(1).double().mean() == pytest.approx(0.25, abs=0.04)
    assert torch.equal(erased[3:9], erase(images[3:9], draws[3:9], 0.25, mode))
    colors = erased.permute(0, 2, 3, 1)[changed].double()
    if mode == "const":
        assert colors.unique(dim=0).tolist() == [[124, 116, 104]]
    else:
        assert colors.mean(0) == pytest.approx([123.7, 116.3, 103.5], abs=12)
        assert colors.std(0) == pytest.approx([58, 57, 56], abs=9)
        box = erased[changed.flatten(1).sum(1) > 9][0]
        assert len(box.flatten(1).T.unique(dim=0)) == 2 or mode == "pixel"


@examples(40)
@given(st.integers(0, 99), st.integers(24, 200), st.sampled_from([(12, 3), (8, 2), (8, 8), (6, 1)]))
def test_a_batch_shows_each_of_its_samples_so_often_and_ranks_have_other_copies(epoch, samples, sizes):
    batch_size, repeats = sizes
    order = epoch_order(5, epoch, [samples])
    whole = repeated(order, batch_size, repeats)
    batches = [*training_batches(whole, batch_size, 0, 1)]
    assert len(batches) == samples // batch_size
    seen = [sample for batch in batches for sample in set((batch % samples).tolist())]
    assert len(seen) == len(set(seen)) == len(batches) * batch_size // repeats  # no sample in two batches
    for batch in batches:
        assert len(set(batch.tolist())) == batch_size
        assert set(np.unique(batch % samples, return_counts=True)[1].tolist()) == {repeats}
    for parts in zip(*(training_batches(whole, batch_size, rank, repeats) for rank in range(repeats)), strict=True):
        assert all(set((part % samples).tolist()) == set((parts[0] % samples).tolist()) for part in parts)


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    root = tmp_path_factory.mktemp("repeated")
    image_tree(root, classes=2, images=20)
    return root


def loader(tree, **more):
    config = DataConfig(str(tree), **{"batch_size": 8, "num_workers": 0, "input_size": 14, **more})
    return TrainLoader(open_split(config, "train", "img"), config, 3, 0, 1, CPU)


def test_copies_of_a_sample_have_its_number_and_label_and_draws_of_their_own(tree):
    again = loader(tree, repeats=2, random_erase=0.5)
    plain = {
        int(i): image.clone()
        for b in loader(tree, random_erase=0.5).epoch(1)
        for i, image in zip(b.index, b.images["weak"])
    }
    batches = [(b.index.clone(), b["labels"].clone(), b["images"].clone()) for b in again.epoch(1)]
    assert again.batches == len(batches) == 5
    for index, labels, images in batches:
        first, second = index.chunk(2)
        assert torch.equal(first, second)
        assert set(index.tolist()) <= set(range(40))
        assert torch.equal(labels, index // 20)
        assert not torch.equal(images[:4], images[4:])
        for number, image in zip(first.tolist(), images):  # the first copy is what is seen without repeats
            if number in plain:
                assert torch.equal(image, plain[number])


def test_wrong_settings_are_named(tree):
    for settings, named in (
        ({"repeats": 3}, "data.batch_size=8 shows each image data.repeats=3 times"),
        ({"auto_augment": "ra_timm", "ra_magnitude": 11.0}, "data.ra_magnitude=11.0: at most 10"),
        (
            {"type_of_data_aug": "short_side", "random_erase": 0.1, "auto_augment": "ra"},
            "auto_augment=ra, data.random_e",
        ),
        ({"type_of_data_aug": "short_side", "repeats": 2}, "data.repeats=2: not with"),
    ):
        with pytest.raises(UsageError, match=named):
            loader(tree, **settings)
    with pytest.raises(UsageError, match="has no one view"):
        next(loader(tree, repeats=2).views(0, [np.arange(4)]))
