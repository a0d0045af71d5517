"""A small packed dataset, and train_with_distillation.py as a user calls it."""

import gc
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import door
import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

ROOT = Path(__file__).resolve().parents[1]
if "LIMBECK_GPU" not in os.environ:  # exact laws, and several ranks; test_on_gpu.py has the others
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
torch.set_num_threads(1)  # there is a test process on every core already
os.environ["OMP_NUM_THREADS"] = "1"


@pytest.fixture(scope="session")
def digits(tmp_path_factory) -> Path:
    """A folder with images/, lists/ and lmdb/: 120 training and 41 validation digits (odd, so two ranks differ)."""
    root = tmp_path_factory.mktemp("digits")
    data = load_digits()
    for number, (pixels, label) in enumerate(zip(data.images[:161], data.target[:161], strict=True)):
        path = root / "images" / ("train" if number < 120 else "val") / str(label) / f"{number:03d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((pixels * 255 / 16).astype(np.uint8)).save(path)
    paths = ["--image_path", str(root / "images")]
    call("dataset/mk_img_list.py", *paths, "--output_path", str(root / "lists"))
    for split in ("train", "val"):
        paths = ["--image_path", str(root / "images"), "--list_path", str(root / "lists")]
        call("dataset/img2lmdb.py", *paths, "--output_path", str(root / "lmdb"), "--split", split, "--num_workers", "1")
    return root


@pytest.fixture
def command(monkeypatch, capfd):
    """A command in this process, (main, words) -> its exit code, and what it printed."""

    def call(main, *words):
        monkeypatch.setattr("sys.argv", [sys.modules[main.__module__].__file__, *map(str, words)])
        try:
            main()
            code = 0
        except SystemExit as end:
            code = end.code
        gc.collect()  # shards that were open
        printed = capfd.readouterr()
        assert "Traceback" not in printed.err
        return code, printed.out, printed.err

    return call


@pytest.fixture
def run(command):
    """train_with_distillation.py in this process: its exit code, and what it printed."""
    import train_with_distillation as door

    return partial(command, door.main)


@pytest.fixture
def ran(command):
    """A command in this process, (main, words), which must end with ``code``: what it printed, as stdout and stderr."""

    def call(main, *words, code=0):
        ended, out, err = command(main, *words)
        assert ended == code, f"exit code {ended}\n{out}\n{err}"
        return SimpleNamespace(stdout=out, stderr=err)

    return call


@pytest.fixture
def train(ran):
    """That of train_with_distillation.py."""
    import train_with_distillation as door

    return partial(ran, door.main)


@pytest.fixture(scope="session")
def finished(digits, tmp_path_factory):
    """A run of three epochs that nothing befell, in a folder called run."""
    from small_run import words

    runs = tmp_path_factory.mktemp("finished")
    trained(*words(digits, runs))
    return runs / "run"


@pytest.fixture
def copy(finished, tmp_path):
    """That run again, to be spoiled."""
    config = json.loads((finished / "config.json").read_text())
    config["train_params"]["output_path"] = str(tmp_path)
    shutil.copytree(finished, tmp_path / "run")
    (tmp_path / "run/config.json").write_text(json.dumps(config))
    return tmp_path / "run"


def trained(*words: str) -> None:
    """train_with_distillation.py in this process, for fixtures of a module."""
    import train_with_distillation as door

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["", *words])
        door.main()
    gc.collect()  # shards that were open


@pytest.fixture
def altered(tmp_path_factory):
    """train_with_distillation.py after statements that change it, as a process that must end with ``code``.

    What it printed, as stdout and stderr. The process is forked from one that has imported the modules.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["train_with_distillation"])

    def call(statements, *words, code):
        outputs = [tmp_path_factory.mktemp("printed") / name for name in ("stdout", "stderr")]
        process = context.Process(target=door.enter_forked, args=(outputs, statements, words))
        process.start()
        process.join()
        printed = SimpleNamespace(**{path.name: path.read_text() for path in outputs})
        assert process.exitcode == code, f"exit code {process.exitcode}\n{printed.stdout}\n{printed.stderr}"
        return printed

    return call


def call(*command: str, code: int = 0, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run a script with this Python from the root; it must end with ``code``."""
    environment = {**os.environ, **(environment or {})}
    done = subprocess.run(
        [sys.executable, *command], cwd=ROOT, capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == code, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done
