"""Splits without labels: listed, packed or read in place, and trained on by terms that read no labels."""

import json
import math
import shutil
from contextlib import closing

import numpy as np
import pytest
import torch
from conftest import call
from dataset_helpers import image_bytes, pack_images, write_tree
from small_store import weights

from dataset import DataConfig, EvalLoader, Record, Samples, TrainLoader, open_split
from dataset.classes import check_learnable, check_splits
from dataset.feed.targets import Labels
from dataset.inspection.report import inspect
from dataset.sources.files import find_listed
from dataset.sources.imagenet import find_classes
from dataset.store.record import UNLABELLED
from evaluation.topk import TopK
from models.outputs import Outputs
from tasks import get
from utils.errors import UsageError

CPU = torch.device("cpu")
FLAT = {f"{number:02d} a 1.jpg": image_bytes(number) for number in range(8)}  # names that end like a list's lines
LABELLED = {f"{name}/{number}.JPEG": image_bytes(number + 50) for name in ("cat", "dog") for number in range(3)}


@pytest.fixture
def flat(tmp_path):
    """Training images in one folder, and class folders of validation."""
    write_tree(tmp_path / "images/train", FLAT)
    write_tree(tmp_path / "images/val", LABELLED)
    return tmp_path


def config(path, **more):
    return DataConfig(str(path), **{"batch_size": 4, "num_workers": 0, "input_size": 14, **more})


def test_a_flat_folder_is_listed_packed_and_read_without_labels(flat, tmp_path, capsys):
    with pytest.raises(UsageError, match="--no_labels train"):  # not by itself: labels may have been forgotten
        find_classes(flat / "images")
    words = ["--image_path", str(flat / "images"), "--output_path", str(flat / "lists")]
    done = call("dataset/mk_img_list.py", *words, "--no_labels", "train")
    assert "train_list.txt: 8 images, no labels" in done.stdout
    assert (flat / "lists/train_list.txt").read_text() == "".join(f"{name}\n" for name in sorted(FLAT))
    assert (flat / "lists/classes.txt").read_text() == "cat\ndog\n"
    assert (flat / "lists/val_list.txt").read_text().splitlines()[-1] == "dog/2.JPEG 1"
    pack_images(flat)
    read = config(flat / "lmdb")
    train, val = open_split(read, "train", "lmdb"), open_split(config(flat / "images"), "val", "img")
    assert (train.unlabelled, val.unlabelled) == (True, False)
    assert train.classes == val.classes == ("cat", "dog")
    assert train.labels.tolist() == [UNLABELLED] * 8
    assert check_splits(train, val) == []
    with closing(TrainLoader(train, read, 0, 0, 1, CPU)) as loader:
        batches = [*loader.epoch(0)]
        assert [sorted(batch) for batch in batches] == [["images", "index", "sizes"]] * 2
    with closing(EvalLoader(train, read, 0, 1, CPU)) as loader:
        assert [batch["labels"].tolist() for batch in loader] == [[-1] * 8]
    assert inspect(flat / "lmdb/train", tmp_path / "sheet.png", verify=True) == 0
    assert "2; no image has a label" in capsys.readouterr().out
    train.close()


def test_classes_of_other_lists_do_not_stay_beside_lists_without_any(flat):
    words = ["--image_path", str(flat / "images"), "--output_path", str(flat / "lists"), "--no_labels", "train"]
    call("dataset/mk_img_list.py", *words)
    shutil.move(flat / "images/val", flat / "val")
    call("dataset/mk_img_list.py", *words)
    assert (flat / "lists/classes.txt").exists()  # of val_list.txt, which stays
    shutil.move(flat / "val", flat / "images/val")
    call("dataset/mk_img_list.py", *words, "val")
    assert sorted(path.name for path in (flat / "lists").iterdir()) == ["train_list.txt", "val_list.txt"]


def test_a_flat_folder_is_read_in_place(flat):
    read = config(flat / "images", train_data_type="img", val_data_type="img")
    train, val = (open_split(read, split, "img") for split in ("train", "val"))
    assert (train.unlabelled, val.unlabelled) == (True, False)
    assert train.classes == val.classes == ("cat", "dog")
    assert train.keys() == sorted(FLAT)
    assert train.read(3).target == UNLABELLED
    shutil.rmtree(flat / "images/val")
    write_tree(flat / "images/val", FLAT)
    train, val = (open_split(config(flat / "images", val_data_type="img"), split, "img") for split in ("train", "val"))
    assert (train.unlabelled, val.unlabelled) == (True, True)
    assert train.classes == val.classes == ()
    assert check_splits(train, val) == []


def test_a_flat_val_beside_class_folders_is_refused(flat):
    shutil.move(flat / "images/train", flat / "images/flat")
    shutil.move(flat / "images/val", flat / "images/train")
    shutil.move(flat / "images/flat", flat / "images/val")
    with pytest.raises(UsageError, match=r"8 images and no class folders.* --no_labels"):
        open_split(config(flat / "images"), "val", "img")


def test_a_list_has_labels_on_every_line_or_on_none(flat):
    write_tree(flat / "lists", {"train_list.txt": b"00 a 1.jpg\n\n  01 a 1.jpg 0\n"})
    with pytest.raises(UsageError, match=r"line 1 .*or on every line a path alone"):
        find_listed(flat / "images", flat / "lists", "train")
    write_tree(flat / "lists", {"train_list.txt": b"00 a 1.jpg\n01 a 1.jpg\n00 a 1.jpg\n"})
    with pytest.raises(UsageError, match=r"line 3 .*the same file stands on line 1"):
        find_listed(flat / "images", flat / "lists", "train")
    write_tree(flat / "lists", {"train_list.txt": b"00 a 1.jpg \n./01 a 1.jpg\n"})
    source = find_listed(flat / "images", flat / "lists", "train")
    assert (source.keys, source.targets, source.classes) == (["00 a 1.jpg", "01 a 1.jpg"], [-1, -1], ())


class Mixed(Samples):
    classes, labels = ("a", "b"), np.array([0, 1, -1, 1, 0, -1])

    def __len__(self):
        return 6

    def read(self, index):
        return Record(str(index), image_bytes(index), int(self.labels[index]))


def test_samples_have_labels_or_not():
    with pytest.raises(UsageError, match="train: 2 images of 6 without a label: all of a split have one, or none"):
        get("single_label").check(Mixed.labels, "train")
    assert not Mixed().unlabelled


def test_terms_that_read_labels_are_named():
    split = Mixed()
    check_learnable(split, {"cross_entropy": "cross_entropy"})
    split.labels = np.full(6, -1)
    check_learnable(split, {})
    with pytest.raises(UsageError, match=r"terms.hard \(cross_entropy\) and terms.w \(wsld\): learns from labels, and"):
        check_learnable(split, {"hard": "cross_entropy", "w": "wsld"})


def test_scores_without_labels_are_not_numbers():
    task, logits = get("single_label"), torch.eye(4)
    without = {"labels": torch.full((4,), -1)}
    scores = TopK(CPU)
    scores.add(Outputs(logits), Batch(without))
    given = scores.compute()
    assert given["images"] == 4
    assert all(math.isnan(given[name]) for name in ("top1", "top5", "loss"))
    assert task.running(Outputs(logits), Batch({}))["top1"].isnan()
    assert task.running(Outputs(logits), Batch({"labels": torch.tensor([0, 1, 2, 0])}))["top1"] == 3
    assert math.isnan(task.chance(np.full(5, -1)))
    task.check(np.full(5, -1), "train")


class Batch:
    def __init__(self, targets):
        self.targets = targets


def test_labels_are_arrays_of_minus_one():
    out = {"labels": np.zeros(2, np.int64)}
    Labels(0).put(UNLABELLED, None, False, out, 1)
    assert out["labels"].tolist() == [0, -1]


CONFIG = """
from dataclasses import replace
from configs.digits import cfg as made
from knowledge_distiller import Term
from teachers import TeacherConfig

base = made("{method}")
terms = {terms}
cfg = replace(
    base,
    phases={{name: replace(phase, epochs=2, terms=terms) for name, phase in base.phases.items()}},
    teachers={{"teacher": TeacherConfig("cifar_resnet20", "{weights}", num_classes=10, expect=0.0)}},
    student=replace(base.student, num_classes=10),
)
"""


@pytest.fixture
def unlabelled(digits, tmp_path, run):
    """A run on the digits, of which those to train with lie in one folder, by terms: exit code, output, errors."""
    images = {f"{path.parent.name}_{path.name}": path.read_bytes() for path in (digits / "images/train").glob("*/*")}
    write_tree(tmp_path / "images/train", images)
    shutil.copytree(digits / "images/val", tmp_path / "images/val")

    def call(terms, *more):
        (tmp_path / "cfg.py").write_text(CONFIG.format(method="wsld", terms=terms, weights=weights(tmp_path)))
        words = [f"data.data_path={tmp_path / 'images'}", "data.train_data_type=img", "data.val_data_type=img"]
        words += ["data.batch_size=20", "data.num_workers=0", f"train_params.output_path={tmp_path}", "name=run"]
        return run("--cfg", str(tmp_path / "cfg.py"), *words, *more)

    return call


@pytest.mark.parametrize("labelled", [True, False])
def test_a_student_learns_from_a_teacher_alone(unlabelled, tmp_path, labelled):
    if not labelled:
        for path in (tmp_path / "images/val").glob("*/*"):
            path.rename(tmp_path / "images/val" / path.name)
        for path in (tmp_path / "images/val").glob("*/"):
            path.rmdir()
    terms = """{"kd": Term("kd"), "dist": Term("dist")}"""
    code, printed, errors = unlabelled(terms, f"teachers.teacher.store={tmp_path / 'store'}")
    assert code == 0, errors
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    training = [row for row in rows if row["kind"] == "train"]
    assert training[-1]["loss"] < training[0]["loss"]
    assert all(math.isnan(row["top1"]) for row in training)
    top1 = [row["top1"] for row in rows if row["kind"] == "val"]
    assert len(top1) == 2
    assert all(math.isnan(value) != labelled for value in top1)
    assert (tmp_path / "run/student.safetensors").exists()
    if not labelled:
        assert "best after epoch 2: top1 nan" in printed


def test_a_run_with_a_term_that_reads_labels_stops_with_its_name(unlabelled):
    code, _, errors = unlabelled("""{"kd": Term("kd"), "hard": Term("cross_entropy"), "c": Term("crd")}""")
    assert code == 2
    assert "terms.hard (cross_entropy) and terms.c (crd): learns from labels" in errors
