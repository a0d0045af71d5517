"""Batches: pixels, labels and order, whatever the number of workers and ranks and the kind of storage."""

import io
from contextlib import ExitStack, contextmanager

import numpy as np
import pytest
import torch
from dataset_helpers import image_bytes, image_tree, make_lists, pack_images, write_tree
from PIL import Image
from torchvision.transforms import v2

from dataset.feed.crops import jitter_factors, random_resized_crop, random_scale_crop, uniform
from dataset.jpeg.decode import decode
from dataset.jpeg.resize import resize
from dataset.loader import DataConfig, EvalLoader, TrainLoader, open_split
from dataset.store.record import Record
from dataset.store.samples import Samples
from utils.errors import DataError, UsageError

CPU = torch.device("cpu")
ODD = [(24, 31), (31, 24), (9, 40), (40, 9), (16, 16), (15, 17), (7, 7), (1, 3), (33, 65), (18, 23)]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """26 training and 10 validation images of odd sizes, as folders and packed."""
    root = tmp_path_factory.mktemp("loader")
    image_tree(root / "images", classes=2, images=13)
    modes = ("RGB", "L", "CMYK")
    odd = [image_bytes(number, *size, mode=modes[number % 3]) for number, size in enumerate(ODD)]
    write_tree(root / "images/val", {f"class{number % 2}/{number}.JPEG": data for number, data in enumerate(odd)})
    make_lists(root)
    for split in ("train", "val"):
        pack_images(root, "--shard_mb", "0", split=split)
    return root


def configure(root, kind="lmdb", **more):
    path = root / ("lmdb" if kind == "lmdb" else "images")
    settings = {"batch_size": 8, "num_workers": 0, "input_size": 14, "val_resize": 16, "val_batch_size": 4}
    return DataConfig(str(path), **{**settings, **more})


def keep(batch):
    return {name: tensor.clone() for name, tensor in batch.named.items()}


def train(root, kind="lmdb", epochs=(0,), first=0, rank=0, world=1, **more):
    """The training batches of some epochs."""
    config = configure(root, kind, **more)
    with ExitStack() as stack:
        samples = stack.enter_context(opened(config, "train", kind))
        loader = TrainLoader(samples, config, seed=3, rank=rank, world=world, device=CPU)
        stack.callback(loader.close)
        return [keep(batch) for epoch in epochs for batch in loader.epoch(epoch, first)]


def evaluate(root, kind="lmdb", split="val", rank=0, world=1, samples=None, **more):
    """The evaluation batches of a split, or of other samples."""
    config = configure(root, kind, **more)
    with ExitStack() as stack:
        samples = samples or stack.enter_context(opened(config, split, kind))
        loader = EvalLoader(samples, config, rank=rank, world=world, device=CPU)
        stack.callback(loader.close)
        batches = [keep(batch) for batch in loader]
        assert len(loader) == len(batches)
        return batches


@contextmanager
def opened(config, split, kind="lmdb"):
    samples = open_split(config, split, kind)
    try:
        yield samples
    finally:
        if kind == "lmdb":
            samples.close()  # one process may open a shard once


def same(one, two):
    assert len(one) == len(two)
    for first, second in zip(one, two, strict=True):
        assert first.keys() == second.keys()
        for name in first:
            assert torch.equal(first[name], second[name]), name


@pytest.mark.parametrize("crop", ["center", "squash"])
def test_evaluation_pixels_are_torchvisions(root, crop):
    paths = sorted((root / "images/val").glob("*/*"))
    shown = {"center": [v2.Resize(16), v2.CenterCrop(14)], "squash": [v2.Resize((14, 14))]}[crop]
    transform = v2.Compose([*shown, v2.PILToTensor()])
    batches = evaluate(root, "img", val_crop=crop, decode="exact")
    assert [len(batch["labels"]) for batch in batches] == [4, 4, 2]
    for batch in batches:
        for pixels, label, index in zip(batch["images"], batch["labels"], batch["index"], strict=True):
            image = Image.open(io.BytesIO(paths[index].read_bytes())).convert("RGB")
            assert (pixels.int() - transform(image).int()).abs().max() <= (crop == "squash")  # Pillow rounds in between
            assert label == int(paths[index].parent.name[5])


def test_evaluation_pads_images_smaller_than_the_crop_as_torchvision(root):
    transform = v2.Compose([v2.Resize(9), v2.CenterCrop(14), v2.PILToTensor()])
    with opened(configure(root), "val") as reader:
        for batch in evaluate(root, samples=reader, val_resize=9, decode="exact"):
            for pixels, index in zip(batch["images"], batch["index"].tolist(), strict=True):
                assert torch.equal(pixels, transform(Image.fromarray(decode(reader.read(index).image))))


def test_a_batch_is_what_it_is_documented_to_be(root):
    for batch in (*train(root), *evaluate(root)):
        count = len(batch["labels"])
        assert batch.keys() == {"images", "sizes", "labels", "index"}
        assert batch["images"].shape == (count, 3, 14, 14)
        assert batch["images"].dtype == torch.uint8
        assert batch["images"].is_contiguous(memory_format=torch.channels_last)
        assert batch["labels"].dtype == batch["index"].dtype == torch.int64
        assert batch["labels"].shape == batch["index"].shape == (count,)


@pytest.mark.parametrize("world", [1, 2, 4])
def test_evaluation_over_ranks_sees_every_sample_once(root, world):
    batches = [batch for rank in range(world) for batch in evaluate(root, rank=rank, world=world)]
    assert sorted(torch.cat([batch["index"] for batch in batches]).tolist()) == list(range(10))


def test_training_batches_do_not_depend_on_the_workers(root):
    alone = train(root, epochs=(0, 1), color_jitter=0.4)
    same(alone, train(root, epochs=(0, 1), color_jitter=0.4, num_workers=2))
    assert len(alone) == 6
    assert not torch.equal(alone[0]["images"], alone[3]["images"])


def test_folders_and_shards_give_the_same_batches(root):
    same(train(root, "img"), train(root, "lmdb"))
    cmyk = [n for n, path in enumerate(sorted((root / "images/val").glob("*/*"))) if int(path.stem) % 3 == 2]
    folders, packed = evaluate(root, "img"), evaluate(root, "lmdb")
    for batch in (*folders, *packed):  # packing makes a JPEG of CMYK, within 4 gray levels
        batch["images"][torch.isin(batch["index"], torch.tensor(cmyk))] = 0
    same(folders, packed)


def test_an_epoch_left_in_the_middle_leaves_nothing_behind(root):
    config = configure(root, num_workers=1)
    with opened(config, "train") as samples:
        loader = TrainLoader(samples, config, seed=3, rank=0, world=1, device=CPU)
        next(iter(loader.epoch(0)))
        after = [keep(batch) for batch in loader.epoch(1)]
        loader.close()
    same(after, train(root, epochs=(1,)))


@pytest.mark.parametrize("kind", ["random_sized", "rand_scale"])
def test_training_pixels_are_the_views_drawn(root, kind):
    batches = train(root, type_of_data_aug=kind, rand_scale=(16, 30), epochs=(5,), decode="exact")
    reader = open_split(configure(root), "train", "lmdb")
    turned = 0
    for batch in batches:
        index = batch["index"].numpy()
        numbers = uniform(3, 5, index, 44)
        if kind == "random_sized":
            windows = random_resized_crop(numbers[:, 4:], reader.sizes[index], (0.08, 1.0), (3 / 4, 4 / 3))
        else:
            windows = random_scale_crop(numbers[:, 4:7], reader.sizes[index], (16, 30), 14)
        for row, (top, left, height, width) in enumerate(windows):
            image = decode(reader.read(int(index[row])).image)[top : top + height, left : left + width]
            expected = resize(image, 14, 14)
            if mirrored := numbers[row, 0] < 0.5:
                expected = expected[:, ::-1]
            turned += mirrored
            assert np.array_equal(batch["images"][row].permute(1, 2, 0), expected)
            assert batch["labels"][row] == reader.labels[index[row]]
    assert 0 < turned < 24
    reader.close()


def test_one_augmentation_leaves_the_draws_of_the_others_alone(root):
    plain, unturned = train(root), train(root, flip=False)
    jittered = train(root, color_jitter=0.4, flip=False)
    for batch, straight, coloured in zip(plain, unturned, jittered, strict=True):
        mirrored = torch.from_numpy(uniform(3, 0, batch["index"].numpy(), 1)[:, 0] < 0.5)[:, None, None, None]
        assert torch.equal(batch["images"], torch.where(mirrored, straight["images"].flip(3), straight["images"]))
        factors = jitter_factors(uniform(3, 0, batch["index"].numpy(), 4)[:, 1:], 0.4)
        brighter = torch.from_numpy(factors[:, 0] > 1.2)
        assert (coloured["images"].float() - straight["images"])[brighter].mean() > 0 or not brighter.any()


def test_training_without_crops_sees_evaluation_pixels(root):
    images = torch.cat([batch["images"] for batch in evaluate(root, split="train")])
    for batch in train(root, type_of_data_aug="none", flip=False):
        assert torch.equal(batch["images"], images[batch["index"]])


class Broken(Samples):
    """Samples of which the third is not as it should be."""

    classes = ("a", "b")

    def __init__(self, image=None, target=1):
        self._bad = Record("b/third.JPEG", image if image is not None else image_bytes(0), target)

    def __len__(self):
        return 4

    def read(self, index):
        return self._bad if index == 2 else Record(f"a/{index}.JPEG", image_bytes(index), 0)


@pytest.mark.parametrize("image", [b"", b"text", image_bytes(0)[:200]])
@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_image_names_its_key(root, image, workers):
    with pytest.raises(DataError, match=r"b/third\.JPEG"):
        evaluate(root, samples=Broken(image), num_workers=workers)


@pytest.mark.parametrize("target", [2, -2, (0, 1), ()])
def test_a_label_outside_the_classes_names_its_key(root, target):
    with pytest.raises(DataError, match=r"b/third\.JPEG: .* is not a label in 0 to 1"):
        evaluate(root, samples=Broken(target=target))


def test_samples_of_another_class_are_read_if_they_have_what_it_takes(root):
    class Unrelated:
        classes, labels = ("a",), np.zeros(4)

    refused = r"Unrelated has no __len__, read: derive it from dataset\.Samples"
    with pytest.raises(UsageError, match=refused):
        TrainLoader(Unrelated(), configure(root), seed=0, rank=0, world=1, device=CPU)
    with pytest.raises(UsageError, match=refused):
        EvalLoader(Unrelated(), configure(root), rank=0, world=1, device=CPU)
    with opened(configure(root), "val") as reader:
        Unrelated.classes, Unrelated.labels = reader.classes, reader.labels
        Unrelated.__len__, Unrelated.read = lambda self: len(reader), lambda self, index: reader.read(index)
        same(evaluate(root, samples=Unrelated()), evaluate(root, samples=reader))


def test_wrong_settings_are_refused(root, tmp_path):
    with pytest.raises(UsageError, match="does not divide over 3 ranks"):
        train(root, world=3)
    with pytest.raises(UsageError, match="exceeds the 26 training images"):
        train(root, batch_size=64)
    with pytest.raises(UsageError, match=r"data\.data_path: .*absent is not a folder"):
        open_split(configure(root), "absent", "lmdb")
    write_tree(tmp_path, {"images/train/a/notes.txt": b"x"})
    with pytest.raises(UsageError, match="holds no images"):
        open_split(configure(tmp_path, "img"), "train", "img")
    with pytest.raises(UsageError, match=r"holds no LMDB shards; .*data\.train_data_type=img"):
        open_split(configure(root, "img"), "train", "lmdb")


def test_an_image_deleted_from_its_folder_is_named(tmp_path):
    image_tree(tmp_path / "images", images=4)
    samples = open_split(configure(tmp_path, "img"), "train", "img")
    (tmp_path / "images/train/class0/002.JPEG").unlink()
    with pytest.raises(DataError, match=r"class0/002\.JPEG: No such file"):
        samples.read(2)
