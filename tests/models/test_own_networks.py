"""Networks of a user's own, by import path."""

import dataclasses
import json
import sys
from functools import partial

import pytest
import torch

from imagenet_train_cfg import cfg as imagenet
from models.heads import HeadConfig
from models.zoo import NetworkConfig, build_network
from training.facts import changed_code, facts_of
from utils.config import override, restore
from utils.errors import UsageError

LAYERS = """
from torch import nn

def stage(channels_in, channels):
    return nn.Sequential(nn.Conv2d(channels_in, channels, 3, 2, 1), nn.BatchNorm2d(channels), nn.ReLU())
"""
NETS = """
import torch
from torch import nn

from mine_of_a_test.layers import stage
from models.outputs import Body, Outputs

class Net(nn.Module):
    def __init__(self, num_classes, width=8, depths=(1, 1)):
        super().__init__()
        self.stages = nn.Sequential(*map(stage, (3, *(width,) * 3), (width,) * 4))
        self.fc = nn.Linear(width, num_classes)

    def forward(self, images):
        return self.fc(self.stages(images).mean((2, 3)))

    @classmethod
    def wide(cls, num_classes):
        return cls(num_classes, 16)

class Giving(Body):
    features = ("last", "half")

    def __init__(self, **options):
        super().__init__()
        self.net = Net(**options)

    def forward(self, images):
        last = self.net.stages(images)
        return Outputs(self.net.fc(last.mean((2, 3))), {"last": last, "half": last / 2})

class Features(Net):
    def forward(self, images):
        return self.stages(images)

class Pair(Net):
    def forward(self, images):
        return super().forward(images), 0

class Unlisted(Net):
    def forward(self, images):
        return Outputs(super().forward(images))

def without_classes(width=8):
    return Net(10, width)

def of_lists(num_classes):
    return [Net(num_classes)]

def broken(num_classes):
    return Net(num_classes, width="a")

NUMBER = 3
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A folder on Python's path with the package `mine_of_a_test`."""
    package = tmp_path / "mine_of_a_test"
    package.mkdir()
    (package / "layers.py").write_text(LAYERS)
    (package / "nets.py").write_text(NETS)  # without __init__.py, as many a project has it
    monkeypatch.setattr("sys.path", [*sys.path, str(tmp_path)])
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("mine_of_a_test")]:
        del sys.modules[name]


def named(name, **settings):
    return NetworkConfig(f"mine_of_a_test.nets:{name}", **settings)


def given(network):
    """What it gives for two images of 64 x 64 pixels."""
    with torch.no_grad():
        return network.eval().predict(torch.zeros(2, 3, 64, 64, dtype=torch.uint8))


def test_it_is_built_with_its_options_and_taps_are_found_or_named(mine):
    found = given(build_network(named("Net", options={"width": 12}), 7, ["stage1", "stage2", "last", "pooled"], 64))
    assert found.logits.shape == (2, 7)
    shapes = {name: tuple(value.shape[1:]) for name, value in found.features.items()}
    assert shapes == {"stage1": (12, 16, 16), "stage2": (12, 8, 8), "last": (12, 4, 4), "pooled": (12,)}
    config = named("Net", taps={"stage4": "stages.0.0", "stage1": "stages.3"})
    features = given(build_network(config, 7, ["stage1", "stage4"], 64)).features
    assert features["stage4"].shape[2:] == (32, 32)
    assert features["stage1"].shape[2:] == (4, 4)
    features = given(build_network(named("Giving"), 7, ["half", "last", "pooled"], 64)).features
    assert torch.equal(2 * features["half"], features["last"])
    assert given(build_network(named("Net.wide"), 7, ["pooled"], 64)).features["pooled"].shape == (2, 16)


@pytest.mark.parametrize(
    "head", [HeadConfig("embedding", {"dimensions": 5}), HeadConfig("reused"), HeadConfig("pooling")]
)
def test_heads_go_behind_it(mine, head):
    teacher = build_network(named("Net.wide"), 7, (), 64)
    network = build_network(named("Net", head=head), 7, ["pooled"], 64, {"teacher": teacher}, new_classifier=True)
    assert given(network).logits.shape == (2, 7)


def test_a_class_in_a_config_becomes_its_import_path_and_a_run_finds_it_again(mine, monkeypatch):
    from mine_of_a_test.nets import Net

    config = NetworkConfig(Net, options={"width": 12, "depths": (2, 1)})
    assert (config.name, config.folder) == ("mine_of_a_test.nets:Net", str(mine))
    written = json.loads(json.dumps(dataclasses.asdict(config)))
    monkeypatch.setattr("sys.path", [one for one in sys.path if one != str(mine)])
    for name in [name for name in sys.modules if name.startswith("mine_of_a_test")]:
        del sys.modules[name]
    again, unknown = restore(NetworkConfig, written)
    assert (again, unknown) == (config, [])
    built = build_network(again, 7, (), 64)
    assert built.network.fc.in_features == 12
    state = {name: value.clone() for name, value in built.network.state_dict().items()}
    torch.save(state, mine / "own.pth")
    loaded = build_network(dataclasses.replace(again, weights=str(mine / "own.pth")), 7, (), 64)
    assert all(torch.equal(value, state[name]) for name, value in loaded.network.state_dict().items())


def test_what_no_other_program_can_import_is_refused():
    def inner(num_classes):
        return torch.nn.Linear(num_classes, num_classes)

    for made_by, shown in ((lambda num_classes: None, "<lambda>"), (inner, "<locals>"), (partial(inner), "partial")):
        with pytest.raises(UsageError, match=rf'{shown}.*give NetworkConfig\("my_models:MyNet"\)'):
            NetworkConfig(made_by)


def test_options_are_typed_as_they_are_meant():
    words = ["width=32", "rate=0.5", "depths=2,2,6", "act=gelu", "bias=false", "drop=none"]
    made = override(imagenet, [f"student.options.{word}" for word in words]).student.options
    assert made == {"width": 32, "rate": 0.5, "depths": (2, 2, 6), "act": "gelu", "bias": False, "drop": None}
    assert isinstance(made["width"], int)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (lambda: named("Net", options={"widht": 3}), r"takes no widht: it takes .*width"),
        (lambda: named("without_classes"), "takes no num_classes: give it a parameter num_classes"),
        (lambda: named("Nothing"), r"there is no Nothing in .*nets\.py"),
        (lambda: named("NUMBER"), "is no class or function"),
        (lambda: named("of_lists"), r"makes an object of list, which is no torch\.nn\.Module"),
        (lambda: named("broken"), r"raised TypeError: .*layers\.py, line \d+\)$"),
        (lambda: named("Features"), r"returns \[1, 8, 4, 4\] for one image, where logits \[1, 7\]"),
        (lambda: named("Pair"), r"returns tuple for images"),
        (lambda: named("Unlisted"), r"derive it from models\.outputs\.Body"),
        (lambda: named("Net", weights="default"), "has no published weights default"),
        (lambda: NetworkConfig("nowhere.nets:Net"), r"no module nowhere\.nets: put nowhere/nets\.py beside the config"),
        (lambda: NetworkConfig("nowhere:Net", folder="/gone"), r"put nowhere\.py into /gone, or into a folder of PY"),
        (lambda: NetworkConfig("utils.nets:Net"), r"Limbeck has a 'utils' of its own.*name mine\.utils\.nets:Net"),
        (lambda: NetworkConfig("resnet18", options={"width": 3}), "options: resnet18 takes none"),
    ],
)
def test_mistakes_are_named_with_what_to_do(mine, config, message):
    with pytest.raises(UsageError, match=message):
        build_network(config(), 7, (), 64)


def test_a_module_of_the_same_name_from_elsewhere_is_never_taken_for_it(mine, tmp_path_factory):
    build_network(named("Net"), 7, (), 64)
    other = tmp_path_factory.mktemp("other") / "mine_of_a_test"
    other.mkdir()
    (other / "nets.py").write_text(NETS)
    config = named("Net", folder=str(other.parent))
    with pytest.raises(UsageError, match=rf"is that of {other}.*and Python has .* from {mine}"):
        build_network(config, 7, (), 64)


def test_changed_files_are_named_with_those_that_they_import(mine):
    networks = {"student": named("Net"), "teachers.teacher": NetworkConfig("resnet18")}
    then = json.loads(json.dumps(facts_of({}, {}, networks)))
    assert then["code"].keys() == {"student"}
    assert then["code"]["student"].keys() == {"mine_of_a_test/nets.py", "mine_of_a_test/layers.py"}
    assert list(changed_code(then, facts_of({}, {}, networks))) == []
    (mine / "mine_of_a_test" / "layers.py").write_text(f"{LAYERS}# other\n")
    (remark,) = changed_code(then, facts_of({}, {}, networks))
    assert "student.name: mine_of_a_test/layers.py has changed" in remark


def test_weights_of_a_run_come_with_what_has_changed_since(mine, capsys):
    config = named("Net")
    run = mine / "run"
    run.mkdir()
    torch.save(build_network(config, 7, (), 64).network.state_dict(), run / "best.pt")
    (run / "facts.json").write_text(json.dumps(facts_of({}, {}, {"student": config})))
    rebuilt = dataclasses.replace(config, weights=str(run / "best.pt"))
    build_network(rebuilt, 7, (), 64)
    assert capsys.readouterr() == ("", "")
    (mine / "mine_of_a_test" / "layers.py").write_text(f"{LAYERS}# other\n")
    for _ in range(2):
        build_network(rebuilt, 7, (), 64)
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert f"{run / 'best.pt'}: since that run mine_of_a_test/layers.py has changed (SHA-256 " in err
    for text in ("{", "[]", '{"code": {"student": 3}}'):  # which resuming it says
        (run / "facts.json").write_text(text)
        build_network(rebuilt, 7, (), 64)
    assert capsys.readouterr().err == ""


def test_it_classifies_and_is_no_detector():
    task = {"task": "detection", "student": NetworkConfig("fcos_nets:Net")}
    with pytest.raises(UsageError, match=r"student\.name=fcos_nets:Net is no detector, and task=detection needs one"):
        dataclasses.replace(imagenet, **task)._check_task(dataclasses.replace(imagenet, **task).made_task())
