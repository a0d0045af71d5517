"""Projects that have modules of the same names as this checkout."""

import json
import os
import subprocess
import sys

import pytest
from conftest import ROOT

from recipe import Recipe
from utils.config import read_config
from utils.errors import UsageError
from utils.imports import check_namesakes, names_here, reachable, sources_of

CONFIG = """
from configs.digits import cfg as digits
from dataclasses import replace
from models.zoo import NetworkConfig
import my_models
import training.loop, utils.config

cfg = replace(digits("student"), student=NetworkConfig(my_models.Net, options={"width": 4}), name="mine")
"""
MODEL = """
from torch import nn
from my_layers import Pool
from objectives.contract import objective  # ours, which the project lacks

class Net(nn.Module):
    def __init__(self, num_classes, width):
        super().__init__()
        self.body, self.fc = nn.Sequential(nn.Conv2d(3, width, 3, 2), nn.ReLU(), Pool()), nn.Linear(width, num_classes)

    def forward(self, images):
        return self.fc(self.body(images))
"""
LAYERS = "from torch import nn\n\nclass Pool(nn.Module):\n    def forward(self, x):\n        return x.mean((2, 3))\n"


@pytest.fixture
def project(tmp_path):
    """A folder with a package for every name at the top of this checkout but the command's, which raises an error."""
    project = tmp_path / "project"
    for name in sorted(names_here() - {"train_with_distillation"}):
        (project / name).mkdir(parents=True)
        (project / name / "__init__.py").write_text("raise RuntimeError('of the project')\n")
        (project / name / "layers.py").write_text("class Swish: ...\n")
    (project / "my_models.py").write_text(MODEL)
    (project / "my_layers.py").write_text(LAYERS)
    (project / "config.py").write_text(CONFIG)
    return project


def started(project, *command, **environment):
    """What a command prints that is given in the project's folder."""
    return subprocess.run(
        [sys.executable, *command],
        cwd=project,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_project_with_all_our_names_trains_and_its_run_is_found_again(digits, project):
    words = [f"data.data_path={digits / 'lmdb'}", "train_params.output_path=runs", "data.num_workers=1", "epochs=1"]
    script = str(ROOT / "train_with_distillation.py")
    done = started(project, script, "--cfg", "config.py", *words)
    assert done.returncode == 0, done.stderr
    run = project / "runs" / "mine"
    config = json.loads((run / "config.json").read_text())
    assert (config["student"]["name"], config["student"]["folder"]) == ("my_models:Net", str(project))
    assert json.loads((run / "facts.json").read_text())["code"]["student"].keys() == {"my_models.py", "my_layers.py"}
    best = done.stdout.splitlines()[-1].partition("best after epoch 1: ")[2]
    # With -m Python puts the project's folder before this one.
    by_module = started(project, "-m", "train_with_distillation", "--eval", "runs/mine", PYTHONPATH=str(ROOT))
    assert best in by_module.stdout, by_module.stderr
    with (project / "my_layers.py").open("a") as file:
        file.write("# other\n")
    assert "my_layers.py has changed" in started(project, script, "--cfg", "config.py", *words).stdout


@pytest.mark.parametrize(
    ("line", "wanted", "file"),
    [
        ("import utils.layers", "utils.layers", "utils/layers.py"),
        ("from utils.layers import Swish", "utils.layers.Swish", "utils/layers.py"),
        ("from utils import layers", "utils.layers", "utils/layers.py"),
        ("from utils.layers import *", r"utils.layers.\*", "utils/layers.py"),
        ("import recipe", "recipe", "recipe/__init__.py"),
        ("from models.zoo import NetworkConfig", "models.zoo.NetworkConfig", "models/zoo.py"),
        ("import beside", "utils.layers", "utils/layers.py"),
        ("from package import nets", "utils.layers", "utils/layers.py"),
    ],
)
def test_a_module_that_both_have_is_named_with_what_to_do(project, monkeypatch, line, wanted, file):
    monkeypatch.setattr("sys.path", [*sys.path])
    (project / "beside.py").write_text("import utils.layers\n")
    (project / "models" / "zoo.py").write_text("class NetworkConfig: ...\n")
    (project / "package").mkdir()
    (project / "package" / "nets.py").write_text("from .more import x\n")
    (project / "package" / "more.py").write_text("def x():\n    from utils import layers\n")
    (project / "config.py").write_text(f"{line}\n")
    with pytest.raises(UsageError, match=rf"\.py, line \d: {wanted} is in {project / file}, but .*move it into a pack"):
        read_config(project / "config.py", Recipe)


def test_what_only_one_of_both_has_is_no_clash(project, monkeypatch):
    """Nor what is named by where it stands."""
    monkeypatch.setattr("sys.path", [*sys.path])
    package = project / "mine" / "utils"
    package.mkdir(parents=True)
    (package / "layers.py").write_text("from . import other\nfrom ..utils import other\n")
    (package / "other.py").write_text("value = 3\n")
    (project / "config.py").write_text(
        "from mine.utils import layers\nfrom utils.config import entry\nimport utils.text\n"
    )
    check_namesakes(project / "config.py", project)
    found = reachable(project / "config.py", project)
    assert found == [project / "config.py", package / "layers.py", package / "other.py"]


def test_modules_on_pythons_path_count_too(project, tmp_path, monkeypatch):
    monkeypatch.setattr("sys.path", [*sys.path, str(project)])
    config = tmp_path / "config.py"
    config.write_text("from utils.layers import Swish\n")
    with pytest.raises(UsageError, match=rf"is in {project}/utils/layers\.py"):
        read_config(config, Recipe)


def test_of_an_installed_package_one_file_is_parsed_and_every_one_counts(tmp_path):
    place = tmp_path / "site-packages"
    package = place / "large" / "nets"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("from large.nets import net\n")
    (package / "net.py").write_text("import large.more\n")
    (place / "large/more.py").write_text("value = 3\n")
    (place / "alone.py").write_text("import large.nets\n")
    assert reachable(package / "net.py", place) == [package / "net.py"]
    then = {path: sources_of(path, str(place)) for path in ("large.nets:Net", "large.nets.net:Net", "alone:Net")}
    assert [*map(list, then.values())] == [["large"], ["large"], ["alone.py"]]
    assert then["large.nets:Net"] == then["large.nets.net:Net"]
    (place / "large/more.py").write_text("value = 4\n")
    changed = [path for path, files in then.items() if sources_of(path, str(place)) != files]
    assert changed == ["large.nets:Net", "large.nets.net:Net"]
