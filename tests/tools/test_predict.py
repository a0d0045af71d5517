"""What a student says of files is what it says of them in validation; damage is named and stops nothing."""

import json
import shutil
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image
from small_detectors import SMALL, sharp
from small_students import CLASSES, student_with

import tools.predict as tool
from export import formats
from export.card import about_of
from export.facts import Facts, facts_of
from export.images import Said, images_in, look_at
from export.student import WEIGHTS, student_of
from models.outputs import Scene
from models.zoo import NetworkConfig

FACTS = Facts("run", ["training, 1 epoch: 1 x bce"], [], "here", {}, "python", [], {})
CPU = torch.device("cpu")


@pytest.fixture
def predict(command):
    """tools.predict in this process: its exit code, and what it printed."""
    return partial(command, tool.main)


def exported(student, folder):
    """``student`` as tools.export leaves it."""
    folder.mkdir()
    formats.write_weights(student, folder / WEIGHTS, about_of(student, FACTS))
    return folder


def write_images(folder, *shapes):
    folder.mkdir()
    random = np.random.default_rng(0)
    for number, shape in enumerate(shapes):
        Image.fromarray(random.integers(0, 255, (*shape, 3), np.uint8)).save(folder / f"{number}.jpg", quality=95)
    return folder


def read(path):
    with Image.open(path) as image:
        return np.array(image)


def test_the_share_of_right_answers_is_the_score_that_the_run_logged(finished, digits, predict):
    code, out, _ = predict(finished, digits / "images/val", "--json", "--top", "3")
    rows = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert [row["file"] for row in rows] == sorted(row["file"] for row in rows)
    assert all(len(row["shares"]) == 3 for row in rows)
    right = [row["shares"][0]["class"] == row["file"].split("/")[-2] for row in rows]
    assert 100 * np.mean(right) == pytest.approx(facts_of(finished).scores["top1"])


def test_files_of_other_kinds_are_read_and_damaged_ones_named(finished, digits, predict, tmp_path):
    image = sorted((digits / "images/val").glob("*/*.jpg"))[0]
    folder = tmp_path / "images"
    (folder / "deeper").mkdir(parents=True)
    shutil.copy(image, folder / "deeper/a.JPG")
    Image.open(image).convert("RGB").save(folder / "b.png")
    data = image.read_bytes()
    (folder / "c.jpg").write_bytes(data[: len(data) * 2 // 3])
    (folder / "d.png").write_bytes(b"")
    (folder / "notes.txt").write_text("no image")
    (folder / "e.jpg").symlink_to("gone.jpg")
    code, out, err = predict(finished, folder / "gone.jpg", folder)
    assert code == 3
    assert [line.partition(": ")[0] for line in out.splitlines()] == [
        str(folder / "b.png"),
        str(folder / "deeper/a.JPG"),
    ]
    assert len({line.partition(": ")[2] for line in out.splitlines()}) == 1  # PNG of the pixels that the JPEG has
    for name in ("c.jpg", "d.png"):
        assert any(line.startswith(f"{folder / name}: ") for line in err.splitlines())
    assert "pack the split" not in err
    assert f"{folder / 'gone.jpg'}: no such file or folder\n" in err
    assert f"{folder / 'e.jpg'}: a link that leads nowhere\n" in err
    assert "DataError: 4 images could not be read" in err


def test_labels_are_those_of_at_least_the_threshold_of_the_run(predict, tmp_path):
    student = student_with(NetworkConfig("cifar_resnet8"), "multi_label", options={"threshold": 0.4}, val_crop="squash")
    images = write_images(tmp_path / "images", (32, 32), (40, 50))
    folder = exported(student, tmp_path / "student")
    (shown,) = (said for said in look_at(student_of(folder), [images / "0.jpg"], CPU))
    shares = torch.from_numpy(shown.logits).sigmoid()
    expected = {CLASSES[number] for number in range(5) if shares[number] >= 0.4}
    code, out, _ = predict(folder, images, "--json")
    rows = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert len(rows) == 2
    assert {row["class"] for row in rows[0]["labels"]} == expected
    assert "--top: of " in predict(folder, images, "--top", 2)[2]
    above = str(shares.max().item() + 0.01)
    assert predict(folder, images / "0.jpg", "--threshold", above)[1] == f"{images / '0.jpg'}: none of the classes\n"


def test_boxes_are_in_pixels_of_the_file_and_drawn_on_it(predict, tmp_path):
    network = NetworkConfig("retinanet_cifar_resnet8_fpn", detector=SMALL)
    student = student_with(network, "detection", 64, val_crop="short_side", longest_side=96)
    sharp(student.network)
    images = write_images(tmp_path / "images", (128, 128), (64, 64), (64, 90))
    shutil.copytree(images, tmp_path / "more" / "images")
    (images / "3.jpg").write_bytes(b"\xff\xd8 damaged")
    folder = exported(student, tmp_path / "student")
    save = tmp_path / "drawn"
    given = (images, tmp_path / "more", "--json", "--threshold", "0.3")
    code, out, err = predict(folder, *given, "--save", save)
    rows = {row["file"]: row["boxes"] for row in map(json.loads, out.splitlines())}
    assert code == 3
    assert "3.jpg: " in err
    assert len(rows) == 6
    assert rows[str(images / "1.jpg")] == rows[str(tmp_path / "more/images/1.jpg")]
    assert sorted(path.name for path in save.iterdir()) == sorted(
        f"{number}{end}.png" for number in range(3) for end in ("", "_2")
    )
    assert read(save / "0.png").shape[:2] == read(save / "0_2.png").shape[:2] == (128, 128)
    known = {path: path.read_bytes() for path in (tmp_path / "more").rglob("*.*")}
    for folder_of_photos in (save, tmp_path / "more/images"):
        Image.new("RGB", (64, 64)).save(tmp_path / "more/images/2.png")
        known |= {path: path.read_bytes() for path in folder_of_photos.iterdir()}
        code, out, err = predict(folder, tmp_path / "more", "--save", folder_of_photos)
        assert (code, out, ".png is there already: name another folder" in err) == (2, "", True)
    assert {path: path.read_bytes() for path in known} == known
    shown = torch.from_numpy(read(images / "1.jpg").transpose(2, 0, 1)[None])
    scene = Scene(torch.tensor([[64, 64]]), {}, torch.tensor([0]))
    found = student.network.predict(shown, scene).context
    kept = found["scores"][0] >= 0.3
    assert len(rows[str(images / "1.jpg")]) == int(kept.sum()) > 0
    best = rows[str(images / "1.jpg")][0]
    assert best["box"] == pytest.approx(found["boxes"][0, 0].tolist(), abs=0.5)
    assert max(edge for row in rows[str(images / "0.jpg")] for edge in row["box"]) > 64


def test_each_file_is_looked_at_once_however_it_is_named(tmp_path):
    images = write_images(tmp_path / "images", (32, 32), (32, 32))
    assert images_in([images / "1.jpg", images]) == ([images / "1.jpg", images / "0.jpg"], [])
    student = student_with(NetworkConfig("cifar_resnet8"))
    paths, _ = images_in([images])
    said = list(look_at(student, paths, CPU))
    assert [one.path for one in said] == paths
    assert all(isinstance(one, Said) for one in said)
    data = torch.stack([torch.from_numpy(read(path)) for path in paths]).permute(0, 3, 1, 2)
    expected = student.network.predict(data.contiguous()).logits
    given = torch.from_numpy(np.stack([one.logits for one in said]))
    assert (given - expected).abs().max() < 0.1 * expected.abs().max()  # the same pixels, but for rounding
    assert torch.equal(given.argmax(1), expected.argmax(1))


def test_wrong_words_are_refused_by_name(predict, tmp_path):
    images = write_images(tmp_path / "images", (32, 32))
    folder = exported(student_with(NetworkConfig("cifar_resnet8")), tmp_path / "student")
    (tmp_path / "empty").mkdir()
    for given, said in (
        ((tmp_path, images), "neither a run's folder"),
        ((folder, tmp_path / "gone.jpg"), "gone.jpg: no such file"),
        ((folder, tmp_path / "empty"), "holds no image"),
        ((folder, images, "--save", tmp_path / "drawn"), "is no detector"),
        ((folder, images, "--top", 0), "--top 0"),
        ((folder, images, "--threshold", 2), "--threshold 2"),
        ((folder, images, "--threshold", 0.5), "has one class an image: use --top"),
    ):
        code, _, err = predict(*given)
        assert (code, said in err) == (2, True), err
    (folder / WEIGHTS).write_bytes(b"\x10\0\0\0\0\0\0\0{")
    assert predict(folder, images)[0] == 3
