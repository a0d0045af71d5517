"""Strong views: each operation against Pillow's, shares and draws, and what terms see of them."""

import numpy as np
import pytest
import torch
from batches import batch_of
from PIL import Image, ImageEnhance, ImageOps

from benchmarks import step
from dataset import DataConfig, TrainLoader, open_split
from dataset.feed.augment import cutout
from dataset.feed.crops import CUTOUT, RANDAUGMENT, STRONG, uniform
from dataset.feed.strong import _ALL, _UDA, _cut, _distorted, randaugment, strong_views
from knowledge_distiller import KnowledgeDistiller, Term
from models.zoo import NetworkConfig, build_network
from teachers import Live
from utils.errors import UsageError


def draws(count, seed=1):
    return np.random.default_rng(seed).random((count, 7))


def photos(count=3, height=24, width=24):
    """Smooth, with dark and bright ends that are not 0 and 255."""
    down, across = np.mgrid[:height, :width]
    waves = [
        [30 + 90 * (1 + np.sin(0.3 * number + (0.11 + 0.03 * color) * down + 0.17 * across)) for color in range(3)]
        for number in range(count)
    ]
    return torch.tensor(np.array(waves)).round().to(torch.uint8)


def affine(image, matrix):
    return image.transform(image.size, Image.Transform.AFFINE, matrix)


WIDTH = 24
PILLOW = [  # of each operation in turn: by Pillow, a strength, largest difference of a pixel
    (lambda image, _: image, 0.3, 0),
    (lambda image, _: ImageOps.autocontrast(image), 0.3, 1),
    (lambda image, _: ImageOps.equalize(image), 0.3, 0),
    (lambda image, v: ImageEnhance.Brightness(image).enhance(v), 0.4, 1),
    (lambda image, v: ImageEnhance.Color(image).enhance(v), 0.4, 1),
    (lambda image, v: ImageEnhance.Contrast(image).enhance(v), 0.4, 1),
    (lambda image, v: ImageEnhance.Sharpness(image).enhance(v), 0.4, 1),
    (lambda image, v: ImageOps.posterize(image, int(v)), 5.7, 0),
    (lambda image, v: ImageOps.solarize(image, v), 90.0, 0),
    (lambda image, v: image.rotate(v), 20.0, None),
    (lambda image, v: affine(image, (1, v, 0, 0, 1, 0)), 0.22, None),
    (lambda image, v: affine(image, (1, 0, 0, v, 1, 0)), -0.22, None),
    (lambda image, v: affine(image, (1, 0, v * WIDTH, 0, 1, 0)), 0.25, 0),
    (lambda image, v: affine(image, (1, 0, 0, 0, 1, v * WIDTH)), -0.25, 0),
]


@pytest.mark.parametrize("number", range(len(_ALL)))
def test_each_operation_is_that_of_pillow(number):
    by_pillow, strength, tolerance = PILLOW[number]
    images = photos()
    result = _ALL[number].apply(images, torch.full((3,), strength))
    assert result.dtype == torch.uint8
    for image, ours in zip(images, result, strict=True):
        theirs = np.asarray(by_pillow(Image.fromarray(image.permute(1, 2, 0).numpy()), strength)).astype(int)
        difference = np.abs(ours.permute(1, 2, 0).numpy().astype(int) - theirs)
        if tolerance is None:  # the nearest pixel may be the next one
            assert (difference.max(2) > 12).mean() < 0.02
        else:
            assert difference.max() <= tolerance


def test_there_is_an_operation_of_pillow_for_each():
    assert len(PILLOW) == len(_ALL) == 14


GRAY = (128,) * 3


def filled(image, matrix, resample=Image.Resampling.NEAREST):
    return image.transform(image.size, Image.Transform.AFFINE, matrix, resample, fillcolor=GRAY)


def rotated(image, degrees):
    turned = image.convert("RGBA").rotate(degrees)
    return Image.composite(turned, Image.new("RGBA", turned.size, (128,) * 4), turned).convert("RGB")


BICUBIC = Image.Resampling.BICUBIC
PILLOW_UDA = [  # as PILLOW
    (lambda image, _: image, 0.3, 0),
    (lambda image, _: image, 0.3, 0),
    (lambda image, _: ImageOps.invert(image), 0.3, 0),
    (lambda image, _: ImageOps.autocontrast(image), 0.3, 1),
    (lambda image, _: ImageOps.equalize(image), 0.3, 0),
    (lambda image, v: ImageEnhance.Brightness(image).enhance(1 + v), 0.8, 1),
    (lambda image, v: ImageEnhance.Color(image).enhance(1 + v), -0.4, 1),
    (lambda image, v: ImageEnhance.Contrast(image).enhance(1 + v), 0.8, 2),
    (lambda image, v: ImageEnhance.Sharpness(image).enhance(1 + v), 0.8, 1),
    (lambda image, v: ImageOps.posterize(image, round(v)), 5.6, 0),
    (lambda image, v: ImageOps.solarize(image, v), 90.0, 0),
    (rotated, 20.0, None),
    (lambda image, v: filled(image, (1, v, 0, 0, 1, 0), BICUBIC), 0.22, None),
    (lambda image, v: filled(image, (1, 0, 0, v, 1, 0), BICUBIC), -0.22, None),
    (lambda image, v: filled(image, (1, 0, v * WIDTH, 0, 1, 0)), 0.25, 0),
    (lambda image, v: filled(image, (1, 0, 0, 0, 1, v * WIDTH)), -0.25, 0),
]


@pytest.mark.parametrize("number", range(len(_UDA)))
def test_each_operation_of_randaugment_is_that_of_pillow(number):
    by_pillow, strength, tolerance = PILLOW_UDA[number]
    images = photos()
    result = _UDA[number].apply(images, torch.full((3,), strength))
    for image, ours in zip(images, result, strict=True):
        theirs = np.asarray(by_pillow(Image.fromarray(image.permute(1, 2, 0).numpy()), strength)).astype(int)
        difference = np.abs(ours.permute(1, 2, 0).numpy().astype(int) - theirs)
        if tolerance is None:  # edges of the picture are read otherwise
            assert (difference.max(2) > 12).mean() < 0.06
        else:
            assert difference.max() <= tolerance


def test_randaugment_leaves_a_quarter_of_the_images_alone_and_draws_every_operation():
    images = photos(1).expand(4000, -1, -1, -1)
    drawn = uniform(0, 0, np.arange(4000), RANDAUGMENT.stop)[:, RANDAUGMENT]
    result = randaugment(images, drawn)
    same = (result == images).flatten(1).all(1).float().mean()
    assert 0.25 <= same < 0.33  # a few change nothing
    assert torch.equal(result[7], randaugment(images[:1], drawn[7:8])[0])
    kinds = 1 + (drawn[:, 2] * 15).astype(int)
    assert set(kinds.tolist()) == set(range(1, 16))


def test_a_square_of_half_the_side_has_one_colour():
    images = photos(40)
    drawn = uniform(3, 1, np.arange(40), CUTOUT.stop)[:, CUTOUT]
    drawn[0, :2] = 0.5
    cut = cutout(images, drawn, 0.5)
    changed = (cut != images).any(1)  # [B, H, W]
    assert changed[0].sum() <= 12 * 12
    inside = cut[0, :, 6:18, 6:18].flatten(1)
    assert (inside == inside[:, :1]).all()
    assert (changed.flatten(1).sum(1) >= 6 * 6 - 8).all()  # a quarter at a corner, but for pixels of its colour
    assert len(cut[:, 0].flatten(1).unique()) > 20


def test_every_image_has_operations_of_its_own():
    images = photos(1).expand(28, -1, -1, -1)
    kinds = np.repeat(np.arange(14), 2)
    result = _distorted(images, kinds, np.tile([0.1, 0.8], 14), _ALL)
    drawn = [torch.tensor([op.low + (op.high - op.low) * x]) for op in _ALL for x in (0.1, 0.8)]
    for number, kind in enumerate(kinds):
        assert torch.equal(result[number], _ALL[kind].apply(images[:1], drawn[number])[0])


def test_a_square_is_cut():
    images = torch.zeros(2, 3, 20, 30, dtype=torch.uint8)
    cut = _cut(images, torch.tensor([[0.8, 0.0], [0.5, 0.5], [0.5, 0.5]]))  # 0.8 of half the short side is 8 pixels
    assert (cut[0, 0] == 125).sum() == 8 * 8
    assert (cut[0, 0, 6:14, 11:19] == 125).all()
    assert (cut[0, 2, 6:14, 11:19] == 114).all()
    assert (cut[1] == 0).all()
    at_the_corner = _cut(images, torch.tensor([[0.8, 0.8], [0.0, 1.0], [0.0, 1.0]]))
    assert [(one[0] == 125).sum().item() for one in at_the_corner] == [16, 16]


def test_a_view_does_not_depend_on_the_batch_that_it_is_in():
    images, numbers = photos(8), draws(8)
    whole = strong_views(images, numbers)
    halves = [strong_views(images[part], numbers[part]) for part in (slice(0, 3), slice(3, 8))]
    assert torch.equal(torch.cat(halves), whole)
    assert not torch.equal(strong_views(images, draws(8, seed=2)), whole)
    assert all((one != image).any() for one, image in zip(whole, images, strict=True))
    assert torch.equal(images, photos(8))


def test_every_operation_is_drawn_as_often():
    kinds = (uniform(0, 0, np.arange(7000), STRONG.stop)[:, STRONG][:, :2] * len(_ALL)).astype(int)
    assert np.bincount(kinds[:, 0], minlength=len(_ALL)) == pytest.approx(500, abs=100)
    assert np.bincount(kinds[:, 1], minlength=len(_ALL)) == pytest.approx(500, abs=100)


def test_the_loader_gives_both_views(digits):
    config = DataConfig(str(digits / "lmdb"), batch_size=20, num_workers=0, input_size=8, strong_view=True)
    samples = open_split(config, "train", "lmdb")
    loader = TrainLoader(samples, config, 3, 0, 1, torch.device("cpu"))
    batches = [{k: v.clone() for k, v in batch.named.items()} for batch in loader.epoch(1)]
    loader.close()
    for batch in batches:
        assert batch["strong_images"].shape == batch["images"].shape
        assert not torch.equal(batch["strong_images"], batch["images"])
    with pytest.raises(UsageError, match=r"strong_view shows each image twice, not mixed: set data\.mixup=0"):
        TrainLoader(samples, DataConfig(str(digits / "lmdb"), 20, strong_view=True, cutmix=1.0), 3, 0, 1, None)


def distiller(terms):
    torch.manual_seed(0)
    student, teacher = (build_network(NetworkConfig(f"cifar_resnet{n}"), 10, side=32) for n in (8, 14))
    return KnowledgeDistiller(
        student, {"teacher": Live(teacher)}, terms, torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
    ).eval()


def test_terms_see_the_view_they_ask_for():
    terms = {
        "plain": Term("kd"),
        "strong_kd": Term("kd", view="strong"),
        "strong_ce": Term("cross_entropy", view="strong"),
    }
    images, strong, labels = photos(4, 32, 32), photos(4, 32, 32).flip(3), torch.arange(4)
    both = distiller(terms)(batch_of(images, labels, strong))
    one = distiller({"kd": Term("kd"), "ce": Term("cross_entropy")})
    plain, other = (one(batch_of(view, labels)) for view in (images, strong))
    torch.testing.assert_close(both.values["plain"], plain.values["kd"])
    torch.testing.assert_close(both.values["strong_kd"], other.values["kd"])
    torch.testing.assert_close(both.values["strong_ce"], other.values["ce"])
    torch.testing.assert_close(both.student.logits, plain.student.logits)


def test_a_teacher_sees_the_views_that_its_terms_ask_for():
    terms = {"strong_ce": Term("cross_entropy", view="strong")}
    images, strong = photos(4, 32, 32), photos(4, 32, 32).flip(3)
    for views in (["weak"], ["strong"], ["weak", "strong"]):
        matched, seen = {f"{view}_kd": Term("kd", view=view) for view in views}, []
        both = distiller({**terms, **matched})
        both.teachers["teacher"].network.register_forward_pre_hook(lambda _, given, seen=seen: seen.append(given[0]))
        both(batch_of(images, torch.arange(4), strong))
        shown = {"weak": images, "strong": strong}
        expected = [both.student.normalize(shown[view]) for view in views]
        assert all(torch.equal(one, other) for one, other in zip(seen, expected, strict=True))


def test_a_method_with_strong_views_is_timed(ran):
    done = ran(step.main, "--methods", "crld", "--rounds", 1, "--steps", 1, "--batch", 2)
    assert '"method": "crld"' in done.stdout


def test_a_term_without_a_strong_view_is_refused(digits, tmp_path, train):
    with pytest.raises(UsageError, match=r"terms\.crld\.view: crld compares both views by itself: leave it weak"):
        distiller({"crld": Term("crld", view="strong")})
    words = ["--cfg", "configs/digits.py", "method=wsld", f"data.data_path={digits / 'lmdb'}"]
    words += [f"train_params.output_path={tmp_path}", "terms.wsld.objective=crld"]
    done = train(*words, code=2)
    assert "terms.wsld: crld reads strong views; set data.strong_view=True" in done.stderr


def test_mlkd_trains_on_both_views(digits, tmp_path, train):
    config = tmp_path / "config.py"
    config.write_text(
        "from dataclasses import replace\n"
        "from configs.digits import cfg as digits\n"
        "from knowledge_distiller import Term\n"
        "from teachers import TeacherConfig\n"
        "terms = {}\n"
        "for view in ('weak', 'strong'):\n"
        "    terms[view + '_cross_entropy'] = Term('cross_entropy', view=view)\n"
        "    terms[view + '_mlkd'] = Term('mlkd', view=view, standardize=True)\n"
        "terms['crld'] = Term('crld')\n"
        "teachers = {'teacher': TeacherConfig('cifar_resnet14', expect=0)}\n"
        "base = digits('wsld')\n"
        "data = replace(base.data, strong_view=True)\n"
        "phases = {'distillation': replace(base.last, terms=terms)}\n"
        "cfg = replace(base, name='run', data=data, phases=phases, teachers=teachers)\n"
    )
    words = ["--cfg", str(config), f"data.data_path={digits / 'lmdb'}", f"train_params.output_path={tmp_path}"]
    words += ["data.batch_size=20", "data.num_workers=1", "epochs=1", "train_params.accumulate=2"]
    done = train(*words)
    assert "best after epoch 1" in done.stdout
