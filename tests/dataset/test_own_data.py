"""The functions of docs/own_data.md, each run from the page by source2lmdb.py on data of its library."""

import io
import re
import sys
import tarfile
import types
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from dataset_helpers import image_bytes, pack_in_this_process, pixels, write_tree

import dataset.source2lmdb as tool
from dataset.jpeg.decode import decode
from dataset.store.reader import ShardReader

PAGE = (ROOT / "docs/own_data.md").read_text()
FILES = [image_bytes(number, 20 + number, 30) for number in range(5)]
LEAVES_FILES_OPEN = pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)
NAMES = ["dog", "cat", "cat", "cow", "dog"]
LABELS = [2, 0, 0, 1, 2]  # of the sorted names


def recipe(title):
    """The code below a heading."""
    return re.search(rf"^### {title}\n.*?```python\n(.*?)```", PAGE, re.DOTALL | re.MULTILINE)[1]


@pytest.fixture
def packed(tmp_path, monkeypatch):
    """What the function of a heading packs, with its options."""
    pack_in_this_process(monkeypatch)

    def call(title, *options):
        module = "recipe_" + re.sub(r"\W", "_", title).lower()
        (tmp_path / f"{module}.py").write_text(recipe(title))
        words = ["--output_path", str(tmp_path / "lmdb"), "--split", "train", "--num_workers", "1", "--no_tiles"]
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr("sys.path", [*sys.path])
        monkeypatch.setattr("sys.argv", ["source2lmdb.py", f"{module}:train", *words, *options])
        tool.main()
        return ShardReader(tmp_path / "lmdb/train")

    return call


def check(reader, labels=LABELS):
    """The bytes of every file, and its label."""
    assert reader.labels.tolist() == labels
    assert [bytes(reader.read(number).image) for number in range(5)] == FILES


def test_a_csv_file(packed, tmp_path):
    write_tree(tmp_path / "photos", {f"{number}.jpg": data for number, data in enumerate(FILES)})
    rows = [f"{number}.jpg,{name}" for number, name in enumerate(NAMES)]
    (tmp_path / "photos/labels.csv").write_text("\n".join(["path,label", *rows]))
    reader = packed("A CSV file", f"path={tmp_path}/photos/labels.csv")
    check(reader)
    assert reader.classes == ("cat", "cow", "dog")


def test_hugging_face_datasets(packed, tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    images = [{"bytes": data, "path": None} for data in FILES]
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "cow", "dog"])})
    data = datasets.Dataset.from_dict({"image": images, "label": LABELS}, features=features)
    (tmp_path / "hub/data").mkdir(parents=True)
    data.to_parquet(tmp_path / "hub/data/train-00000-of-00001.parquet")
    check(packed("Hugging Face datasets", f"path={tmp_path}/hub"))


@LEAVES_FILES_OPEN
def test_webdataset(packed, tmp_path):
    pytest.importorskip("webdataset")
    for part, numbers in enumerate(([0, 1, 2], [3, 4])):
        with tarfile.open(tmp_path / f"train-{part:04}.tar", "w") as tar:
            for number in numbers:
                for end, data in (("jpg", FILES[number]), ("cls", str(LABELS[number]).encode())):
                    member = tarfile.TarInfo(f"{number:03}.{end}")
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))
    check(packed("WebDataset", f"urls={tmp_path}/train-{{0000..0001}}.tar"))


class Reader:
    """As FFCV's reader of a file describes it; its library is compiled against OpenCV, and seldom at hand."""

    def __init__(self, path):
        image = np.dtype([("mode", "<u1"), ("width", "<u2"), ("height", "<u2"), ("data_ptr", "<u8")])
        raw = pixels(9, 12, 16)
        parts = [*FILES, raw.tobytes()]
        starts = [64 + sum(len(part) + 7 for part in parts[:number]) for number in range(len(parts))]
        rows = [((0, 30, 20 + number, starts[number]), label) for number, label in enumerate(LABELS)]
        rows.append(((1, 16, 12, starts[5]), 1))
        self.metadata = np.array(rows, np.dtype([("", image), ("", "<i8")], align=True))
        table = [(number, start, len(part)) for number, (start, part) in enumerate(zip(starts, parts, strict=True))]
        kind = [("sample_id", "<u8"), ("ptr", "<u8"), ("size", "<u8")]
        self.alloc_table = np.array(table[::-1], kind)
        Path(path).write_bytes(bytes(64) + b"".join(part + bytes(7) for part in parts))


def test_ffcv(packed, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ffcv", types.ModuleType("ffcv"))
    monkeypatch.setitem(sys.modules, "ffcv.reader", types.SimpleNamespace(Reader=Reader))
    reader = packed("FFCV", f"path={tmp_path}/train.beton")
    check(reader, [*LABELS, 1])
    assert np.abs(decode(reader.read(5).image).astype(int) - pixels(9, 12, 16)).mean() < 3


@LEAVES_FILES_OPEN
def test_mds_folders(packed, tmp_path):
    streaming = pytest.importorskip("streaming")
    with streaming.MDSWriter(out=str(tmp_path / "mds"), columns={"image": "bytes", "label": "int"}) as writer:
        for data, label in zip(FILES, LABELS, strict=True):
            writer.write({"image": data, "label": label})
    check(packed("MosaicML's MDS folders", f"path={tmp_path}/mds"))
