"""The pages in docs/: their code runs as it stands, and they name what the code has."""

import io
import json
import re
import subprocess
import sys
from dataclasses import fields

import numpy as np
import pytest
import torch
from conftest import ROOT, call
from dataset_helpers import image_bytes, make_lists, pack_images, rotated_by_tag, write_tree
from PIL import Image
from test_imports import MAY_IMPORT

import dataset
from dataset.config import DataConfig
from dataset.store.index import Shard
from dataset.store.reader import ShardReader
from imagenet_train_cfg import cfg
from objectives import contract
from utils.errors import DataError
from utils.settings import settings

FILES = {
    "a/gray.JPEG": image_bytes(1, 40, 90, mode="L"),
    "a/progressive.JPEG": image_bytes(2, progressive=True),
    "b/rotated by tag.JPEG": rotated_by_tag(3),
    "b/wide.JPEG": image_bytes(4, 50, 400, subsampling="4:4:4"),
}

PAGES = ["README.md", "CONTRIBUTING.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md")))]


def code(page):
    """The first block of Python on a page."""
    return re.search(r"```python\n(.*?)```", (ROOT / "docs" / page).read_text(), re.DOTALL)[1]


def first_columns(page):
    """What stands in backticks in the first column of the tables of a page."""
    rows = re.findall(r"^\| (`.*?) \|", (ROOT / "docs" / page).read_text(), re.MULTILINE)
    return {name for row in rows for name in re.findall(r"`(\w+)`", row)}


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """Four JPEG files in one shard, and in one each."""
    root = tmp_path_factory.mktemp("docs")
    write_tree(root / "images/train", FILES)
    make_lists(root)
    pack_images(root)
    pack_images(root, "--shard_mb", "0", output="shards")
    return root / "lmdb/train", root / "shards/train"


def test_the_reader_on_the_page_reads_a_split(packed):
    names = {}
    exec(code("format.md"), names)
    for folder in packed:
        samples = {key: (pixels, target) for key, pixels, target in names["read_split"](folder)}
        assert list(samples) == list(FILES)
        for key, (pixels, target) in samples.items():
            assert target == "ab".index(key[0])
            assert np.array_equal(pixels, Image.open(io.BytesIO(FILES[key])).convert("RGB"))


def test_the_reader_on_the_page_finds_damage(packed, tmp_path):
    names = {}
    exec(code("format.md"), names)
    for path in packed[1].iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    shard = tmp_path / "00001.lmdb"
    data = shard.read_bytes()
    image = data.index(b"\xff\xda")
    shard.write_bytes(data[:image] + b"\0" + data[image + 1 :])
    with pytest.raises(AssertionError, match=r"00001\.lmdb, record 0 is damaged"):
        list(names["read_split"](tmp_path))
    with pytest.raises(DataError):
        ShardReader(tmp_path).read(1)
    shard.write_bytes(data[:-4096])
    with pytest.raises(AssertionError, match=r"00001\.lmdb is truncated"):
        list(names["read_split"](tmp_path))


def test_the_format_page_names_every_field_and_array(packed):
    with np.load(packed[0] / "00000.columns.npz") as columns:
        documented = first_columns("format.md") - {"single", "multi", "detection"}
        assert documented == json.loads((packed[0] / "index.json").read_text()).keys() | set(columns.files)
    page = (ROOT / "docs/format.md").read_text()
    for field in fields(Shard):
        assert f"`{field.name}`" in page


def test_the_loop_on_the_page_runs(digits, tmp_path):
    script = tmp_path / "loop.py"
    script.write_text(code("loader.md") + "print(sorted(batch), images.shape, labels.shape, len(samples.classes))\n")
    done = subprocess.run(
        [sys.executable, script],
        cwd=digits,
        env={"PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "['images', 'index', 'labels', 'sizes'] torch.Size([41, 3, 224, 224]) torch.Size([41]) 10\n"


def test_the_loader_page_names_settings_and_keys_that_exist(digits):
    keys = set()
    for options in ({"mixup": 1.0}, {"strong_view": True}):
        config = DataConfig(str(digits / "lmdb"), batch_size=4, num_workers=0, input_size=8, **options)
        loader = dataset.TrainLoader(ShardReader(digits / "lmdb/train"), config, 0, 0, 1, torch.device("cpu"))
        keys |= next(loader.epoch(0)).keys()
    names = first_columns("loader.md")
    assert keys <= names
    assert names - keys <= {field.name for field in fields(DataConfig)}


def test_public_names_come_late_so_that_decoding_processes_start_without_torch():
    script = "import sys, dataset.feed.worker; from dataset import Record, Samples; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True)
    from dataset import TrainLoader, loader

    assert TrainLoader is loader.TrainLoader
    assert all(getattr(dataset, name).__name__ == name for name in dataset.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        dataset.nothing  # noqa: B018


def test_every_objective_is_in_its_page():
    page = (ROOT / "docs" / "objectives.md").read_text()
    rows = [line.split("|")[1] for line in page.splitlines() if line.startswith("| `")]
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    ours = {name for name, one in contract._REGISTRY.items() if one.made.__module__.startswith("objectives.")}
    assert ours <= named, ours - named


def test_the_objective_on_the_page_trains_from_a_file_of_ones_own(digits, tmp_path):
    page = (ROOT / "docs/objectives.md").read_text()
    (code,) = [block for block in re.findall(r"```python\n(.*?)```", page, re.S) if "@objective" in block]
    (terms,) = re.findall(r"`(terms=\{.*?\})` in a config", page, re.S)
    (tmp_path / "my_objectives.py").write_text(code)
    (tmp_path / "my_config.py").write_text(
        "from dataclasses import replace\n"
        "import my_objectives\n"
        "from configs.cifar100 import cfg as cifar100\n"
        "from knowledge_distiller import Term\n"
        "from teachers import TeacherConfig\n"
        "base = cifar100('kd', 'resnet8', 'resnet8')\n"
        "teacher = TeacherConfig('cifar_resnet8', expect=0)\n"
        f"phases = {{'distillation': replace(base.last, {terms})}}\n"
        "cfg = replace(base, name='mine', teachers={'teacher': teacher}, phases=phases)\n"
    )
    words = [f"data.data_path={digits / 'lmdb'}", "epochs=1", "data.batch_size=40", "data.num_workers=0"]
    words += [f"train_params.output_path={tmp_path}", "data.input_size=16", "data.val_resize=16"]
    call("train_with_distillation.py", "--cfg", str(tmp_path / "my_config.py"), *words)
    rows = [json.loads(line) for line in (tmp_path / "mine" / "metrics.jsonl").read_text().splitlines()]
    assert rows[0]["distance"] > 0
    assert rows[0]["loss"] == pytest.approx(rows[0]["cross_entropy"] + 0.1 * rows[0]["distance"], rel=1e-5)


def test_every_promise_has_its_test():
    named = re.findall(r"`(\w+/test_\w+\.py|test_\w+\.py)::(\w+)`", (ROOT / "docs/robustness.md").read_text())
    assert len(named) > 50
    for file, test in named:
        assert f"def {test}(" in (ROOT / "tests" / file).read_text(), f"{file}::{test}"


@pytest.mark.parametrize("page", PAGES)
def test_files_and_settings_on_a_page_exist(page):
    text = (ROOT / page).read_text()
    for path in re.findall(r"\b(?:\w+/)+(?!NAME)\w+\.py\b", text):
        assert (ROOT / path).exists() or (ROOT / "tests" / path).exists(), path
    known = {one.key for one in settings(cfg)}
    for key in re.findall(r"\b((?:data|optim|train_params|student|teachers\.teacher)\.[a-z_]+)=", text):
        assert key in known, key


def test_every_package_has_its_place_in_contributing():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    assert [room for room in MAY_IMPORT if f"`{room}" not in text] == []
