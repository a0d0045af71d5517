"""Pictures from a run folder."""

import numpy as np
import pytest
from conftest import call
from PIL import Image

from figures.correlation import mean_logits
from figures.runs import Seen, look


@pytest.fixture(scope="module")
def run(digits, tmp_path_factory):
    """A student of one epoch, with its teacher."""
    folder = tmp_path_factory.mktemp("runs")
    words = [f"data.data_path={digits / 'lmdb'}", "train_params.epochs=1", "data.batch_size=40", "data.num_workers=0"]
    words += [f"train_params.output_path={folder}", "data.input_size=16", "data.val_resize=16"]
    alone = ["--cfg", "configs/cifar100/teacher.py", "student=resnet8", "name=teacher"]
    call("train_with_distillation.py", *alone, *words)
    weights = f"teachers.teacher.weights={folder / 'teacher' / 'student.safetensors'}"
    taught = ["--cfg", "configs/cifar100/lshfm.py", "teacher=resnet8", "student=resnet8", "name=taught", weights]
    call("train_with_distillation.py", *taught, *words)
    return folder / "taught"


def test_what_the_networks_see(run):
    student, teacher = look(run, teachers=True)
    assert (student.name, teacher.name) == ("student", "teacher")
    assert student.logits.shape == (41, 10)
    assert teacher.pooled.shape == (41, 64)
    assert np.array_equal(student.labels, teacher.labels)
    assert not np.allclose(student.logits, teacher.logits)
    some = look(run, teachers=False, images=11)
    assert [len(one.labels) for one in some] == [11]


def test_pictures_are_drawn(run):
    call("-m", "figures.tsne", str(run), "--teachers", "--images", "30")
    done = call("-m", "figures.correlation", str(run))
    assert "teacher: greatest difference" in done.stdout
    for name, wide in (("tsne.png", 1440), ("correlation.png", 720)):
        with Image.open(run / name) as image:
            assert image.width == wide
            assert len(np.unique(np.asarray(image.convert("RGB")).reshape(-1, 3), axis=0)) > 50


def test_mean_logits_by_hand():
    logits = np.array([[1, 2, 3], [3, 4, 7], [5, 6, 7]], np.float32)
    seen = Seen("student", logits, logits, np.array([0, 0, 2]), ("a", "b", "c"))
    assert mean_logits(seen).tolist() == [[0, 3, 5], [0, 0, 0], [5, 6, 0]]


def test_a_folder_that_is_no_run_is_named(tmp_path):
    done = call("-m", "figures.tsne", str(tmp_path), code=2)
    assert f"{tmp_path} is not a run folder with a best.pt" in done.stderr
