"""Files of weights: what is found in them, what is damaged, what is refused, and how names are fitted."""

import argparse
import collections
import contextlib
import copy
import datetime
import os
import pathlib
import random
import shutil
import types

import numpy as np
import pytest
import safetensors.torch
import torch
import torchvision
from torch import nn

from models.cifar import CIFAR
from models.weights import packed, read_weights
from models.zoo import NetworkConfig, build_network
from training import checkpoint
from utils.errors import DataError, UsageError
from utils.files import sha256


@pytest.fixture(scope="module")
def state():
    torch.manual_seed(0)
    return CIFAR["cifar_resnet8"](num_classes=10).state_dict()


def zeros(state):
    return {name: torch.zeros_like(value) for name, value in state.items()}


def below(prefix, state):
    return {f"{prefix}{name}": value for name, value in state.items()}


def loaded(path, classes=10, part="", **options):
    config = NetworkConfig("cifar_resnet8", f"{path}{part}")
    return build_network(config, classes, side=32, **options).network.state_dict()


def equal(one, other):
    return all(torch.equal(one[name], other[name]) for name in other)


PREFIXES = ["module.", "_orig_mod.", "model.", "net.", "student.", "model.backbone.", "module._orig_mod."]
PREFIXES += ["_orig_mod.module.", "model._orig_mod._orig_mod.module.", "anything.at.all."]


@pytest.mark.parametrize("prefix", PREFIXES)
def test_whatever_stands_before_all_names_is_taken_off(prefix, state, tmp_path):
    others = {"n_averaged": torch.tensor(7), "criterion.weight": torch.zeros(3)}  # beside a network below a prefix
    others = others if prefix != "_orig_mod." else {}
    torch.save({"state_dict": {**below(prefix, state), **others}}, tmp_path / "w.pth")
    assert equal(loaded(tmp_path / "w.pth"), state)


def test_compiled_parts_inside_a_network_are_found(state, tmp_path):
    inside = {name.replace("layer2.", "layer2._orig_mod."): value for name, value in state.items()}
    torch.save(inside, tmp_path / "w.pth")
    assert equal(loaded(tmp_path / "w.pth"), state)


@pytest.mark.parametrize(
    ("raw", "averaged"),
    [
        ("state_dict", "state_dict_ema"),
        ("model", "model_ema"),
        ("model_state", "ema"),
        ("net", "ema_state_dict"),
        ("student", "ema"),
        ("mine", "my.averaged"),
    ],
)
def test_averaged_weights_are_used_and_that_is_printed(raw, averaged, state, tmp_path, capsys):
    path = tmp_path / "w.pth"
    torch.save({raw: zeros(state), averaged: below("module.", state), "optimizer": {"state": {}}, "epoch": 3}, path)
    assert equal(loaded(path), state)
    assert f"{averaged} is used; weights={path}#{raw} takes {raw}" in capsys.readouterr().out
    assert equal(loaded(path, part=f"#{raw}"), zeros(state))
    torch.save({averaged: state, "epoch": 3}, path)
    assert equal(loaded(path), state)
    assert capsys.readouterr().out == ""


def test_averaged_weights_are_known_by_their_names_too(state, tmp_path, capsys):
    path = tmp_path / "w.pth"
    torch.save({**below("model.", zeros(state)), **below("ema_model.module.", state)}, path)
    assert equal(loaded(path), state)
    assert "#model takes model" in capsys.readouterr().out
    torch.save({**state, **below("ema.", zeros(state))}, path)
    assert equal(loaded(path), state)
    assert "#ema takes ema" in capsys.readouterr().out
    assert equal(loaded(path, part="#ema"), zeros(state))


def test_several_networks_in_a_file_are_named(state, tmp_path):
    path = tmp_path / "w.pth"
    for content in ({"one": state, "two": zeros(state)}, {**below("one.", state), **below("two.", zeros(state))}):
        torch.save(content, path)
        with pytest.raises(UsageError, match=r"one and two: choose, such as weights=.*w\.pth#one"):
            loaded(path)
        assert equal(loaded(path, part="#one"), state)
    with pytest.raises(UsageError, match=r"nothing in it is called three; there is one, two"):
        loaded(path, part="#three")
    torch.save({"one": 1, "two": [state]}, path)
    with pytest.raises(UsageError, match=r"w\.pth holds no state dict; its keys: one, two"):
        loaded(path)


def test_two_usual_keys_in_a_file_are_printed(state, tmp_path, capsys):
    path = tmp_path / "w.pth"
    torch.save({"student": zeros(state), "model": state}, path)
    assert equal(loaded(path), state)
    assert capsys.readouterr().out == (
        f"{path} holds several sets of weights: model is used; weights={path}#student takes student\n"
    )


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda value: (100 * value).to(torch.int8), "a strided int8 tensor"),
        (lambda value: value.bool(), "a strided bool tensor"),
        (lambda value: value.to(torch.complex64), "a strided complex64 tensor"),
        (lambda value: value.to_sparse(), "a sparse_coo float32 tensor"),
        (lambda value: value.to("meta"), "holds no values"),
        (lambda value: value / 0, "not finite"),
        (lambda value: (1e9 * value).half(), "not finite"),
    ],
)
def test_tensors_that_are_no_weights_are_refused(change, what, state, tmp_path):
    torch.save({**state, "fc.weight": change(state["fc.weight"])}, tmp_path / "w.pth")
    with pytest.raises(UsageError, match=rf"w\.pth: fc\.weight is .*{what}"):
        loaded(tmp_path / "w.pth")
    for form in (torch.half, torch.bfloat16, torch.double):
        torch.save({**state, "fc.weight": state["fc.weight"].to(form)}, tmp_path / "w.pth")
        assert torch.allclose(loaded(tmp_path / "w.pth")["fc.weight"], state["fc.weight"], atol=1e-2)


def test_a_pipe_is_no_file_of_weights(tmp_path):
    os.mkfifo(tmp_path / "w.pth")
    with pytest.raises(UsageError, match=r"w\.pth is a pipe"):
        loaded(tmp_path / "w.pth")


def test_a_student_gets_a_classifier_for_other_classes_and_others_are_refused(state, tmp_path, capsys):
    path = tmp_path / "w.pth"
    body = {name: value for name, value in state.items() if not name.startswith("fc.")}
    for content, has in ((state, "10 outputs"), (body, "no classifier")):
        torch.save(content, path)
        for classes in (7, 16) if has == "10 outputs" else (7, 10):  # 16 is the width of the first stage too
            with pytest.raises(UsageError, match=rf"has {has}, {classes} are asked for: .* Train it on these classes"):
                loaded(path, classes)
            assert capsys.readouterr().out == ""
            new = loaded(path, classes, new_classifier=True)
            assert f"has {has}, {classes} are asked for: its classifier is new" in capsys.readouterr().out
            assert new["fc.weight"].shape == (classes, 64)
            assert equal(new, body)
    assert build_network(NetworkConfig("cifar_resnet8", num_classes=1000), 10, side=32).num_classes == 1000
    torch.save({name: value for name, value in state.items() if name != "fc.bias"}, path)
    with pytest.raises(UsageError, match=r"does not fit CifarResNet; missing: fc\.bias$"):
        loaded(path, new_classifier=True)
    torch.save({"some.weight": torch.zeros(3)}, path)
    with pytest.raises(UsageError, match=r"does not fit CifarResNet; missing: .* unexpected: some\.weight$"):
        loaded(path, new_classifier=True)
    torch.save({**state, "fc.weight": torch.zeros(7, 65), "fc.bias": torch.zeros(7)}, path)
    with pytest.raises(UsageError, match=r"does not fit CifarResNet; other shapes: fc\.bias: \(7,\) in .* fc\.weight"):
        loaded(path, new_classifier=True)


def harmless():
    counted = collections.defaultdict(list)
    counted["a"].append(1)
    return {
        "args": argparse.Namespace(lr=0.1, output=pathlib.Path("runs"), betas=(0.9, 0.99), kind=float),
        "best": np.float64(76.5),
        "flag": np.bool_(True),
        "scores": np.arange(6.0).reshape(2, 3),
        "names": np.array(["cat", "dog"]),
        "objects": np.array([None, {}], dtype=object),
        "kind": np.dtype("int16"),
        "class": np.float32,
        "counted": counted,
        "order": collections.OrderedDict(a=1),
        "counter": collections.Counter("ab"),
        "size": torch.Size([1, 2]),
        "version": torch.__version__,
        "device": torch.device("cpu"),
        "began": datetime.datetime(2026, 1, 31),
        "took": datetime.timedelta(hours=1),
        "space": types.SimpleNamespace(a=1),
        "path": pathlib.PurePosixPath("x"),
        "sets": ({1}, frozenset([2]), slice(1, 2), range(3), 1j, b"bytes"),
    }


class Foreign:
    """A class that only the program has that wrote the file."""


def test_what_trainers_put_beside_weights_is_passed_over_and_the_rest_is_named(state, tmp_path, capsys):
    path = tmp_path / "w.pth"
    for old in (False, True):
        form = {"_use_new_zipfile_serialization": not old}
        torch.save({"model": state, **harmless()}, path, **form)
        assert equal(loaded(path), state)
        for content, what in (
            ({"model": state, "args": Foreign()}, r"an object of test_weights\.Foreign"),
            (CIFAR["cifar_resnet8"](num_classes=10), r"an object of models\.cifar\.resnet\.CifarResNet"),
            (nn.DataParallel(nn.Linear(1, 1)), r"an object of torch\.nn\.parallel\.data_parallel\.DataParallel"),
        ):
            torch.save(content, path, **form)
            with pytest.raises(UsageError, match=what) as error:
                loaded(path)
            assert "\x1b" not in str(error.value)
    torch.save({"model": state, "args": Foreign()}, path)
    follow(path)
    assert equal(loaded(tmp_path / "w_weights.pth"), state)
    torch.save(CIFAR["cifar_resnet8"](num_classes=10), path)
    follow(path)
    assert loaded(tmp_path / "w_weights.pth").keys() == state.keys()
    torch.save(state, path, pickle_protocol=4)
    follow(path)
    assert equal(loaded(tmp_path / "w_weights.pth"), state)


def follow(path):
    """Do what the message says."""
    with pytest.raises(UsageError) as error:
        loaded(path)
    first, *lines = str(error.value).splitlines()
    assert first.endswith("take its weights out:")
    assert len(lines) == 3
    exec("\n".join(line.strip() for line in lines))


class Runs:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def test_no_file_runs_code(state, tmp_path, capfd):
    mark = tmp_path / "ran"
    calls = [(print, "ran"), (os.system, f"touch {mark}"), (eval, "print('ran')"), (exec, "print('ran')")]
    calls += [(getattr, state, "keys"), (pathlib.Path.touch, mark), (os.mkdir, str(mark)), (shutil.rmtree, str(mark))]
    for call in calls:
        for old in (False, True):
            torch.save({"model": state, "x": Runs(*call)}, tmp_path / "w.pth", _use_new_zipfile_serialization=not old)
            with pytest.raises(UsageError, match="which may run code"):
                loaded(tmp_path / "w.pth")
    assert not mark.exists()
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize(
    ("content", "remark"),
    [
        (b"", "it is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00", "git lfs pull"),
        (b"\n<!DOCTYPE html>", "a web page"),
        (b"\x1f\x8b\x08\x00", "unpack it first"),
        (b"\x89HDF\r\n\x1a\n", "HDF5"),
        (b"PK\x05\x06" + bytes(18), "neither torch.save nor safetensors"),
    ],
)
def test_files_of_other_kinds_are_named(content, remark, tmp_path):
    for name in ("w.pth", "w.safetensors"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UsageError, match=rf"{name}: not a weights file: .*{remark}"):
            loaded(tmp_path / name)


def test_other_archives_are_named(tmp_path):
    np.savez(tmp_path / "w.npz", weight=np.zeros(3))
    shutil.move(tmp_path / "w.npz", tmp_path / "w.pth")
    with pytest.raises(UsageError, match=r"a zip archive that torch\.save did not write"):
        loaded(tmp_path / "w.pth")


def test_every_flipped_bit_is_harmless_or_named(state, tmp_path):
    checkpoint.export(tmp_path / "w.safetensors", state)
    torch.save(state, tmp_path / "w.pth")
    torch.save(state, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    named = read_weights(tmp_path / "old.pth")
    assert equal(named, state)
    drawn = random.Random(0)
    for name in ("w.safetensors", "w.pth"):
        content = (tmp_path / name).read_bytes()
        path = tmp_path / f"flipped_{name}"
        for _ in range(60):
            flipped = bytearray(content)
            flipped[drawn.randrange(len(content))] ^= 1 << drawn.randrange(8)
            path.write_bytes(flipped)
            with contextlib.suppress(DataError, UsageError):
                read = read_weights(path)
                assert read.keys() == state.keys()
                assert equal(read, state)


def test_the_checksum_in_a_files_name_is_compared(state, tmp_path):
    torch.save(state, tmp_path / "w.pth", _use_new_zipfile_serialization=False)
    digest = sha256(tmp_path / "w.pth")
    right, wrong = tmp_path / f"w-{digest[:8]}.pth", tmp_path / "w-deadbeef.pth"
    for path in (right, wrong, tmp_path / "w-20260131.pth", tmp_path / "w-best.pth"):
        shutil.copy(tmp_path / "w.pth", path)
        if path == wrong:
            with pytest.raises(
                DataError, match=r"w-deadbeef\.pth is damaged: its SHA-256 does not begin with deadbeef"
            ):
                loaded(path)
        else:
            assert equal(loaded(path), state)


@pytest.mark.parametrize("form", ["pth", "safetensors of others", "own"])
def test_networks_with_versions_are_read_back(form, tmp_path):
    torch.manual_seed(0)
    state = torchvision.models.mnasnet0_5().state_dict()
    path = tmp_path / ("w.pth" if form == "pth" else "w.safetensors")
    if form == "pth":
        torch.save(below("module.", state), path)
    elif form == "own":
        path.write_bytes(packed(state))
        assert packed(state) == packed(state)
    else:
        safetensors.torch.save_file(state, path)
    assert equal(build_network(NetworkConfig("mnasnet0_5", str(path)), 1000, side=64).network.state_dict(), state)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ("~nobody_of_this_name/w.pth", "leads to a home folder that is not known"),
        ("~/no_such_file_here.pth", r"no_such_file_here\.pth: no such file"),
        ("{folder}", "is a folder; name a file in it"),
        ("{folder}/", "is a folder; name a file in it"),
        ("{folder}/w.pth/x", "cannot be read: Not a directory"),
        ("default", "cifar_resnet8 has no published weights default; give"),
        ("", "cifar_resnet8 has no published weights ; give"),
    ],
)
def test_what_is_no_file_is_named_in_a_line(weights, message, tmp_path):
    (tmp_path / "w.pth").touch()
    with pytest.raises(UsageError, match=message) as error:
        loaded(weights.format(folder=tmp_path))
    assert "\n" not in str(error.value)


def test_a_runs_own_weights_bring_their_normalisation(tmp_path):
    given = {"mean": (0.1, 0.2, 0.3), "std": (0.5, 0.6, 0.7)}
    network = build_network(NetworkConfig("cifar_resnet8", **given), 10, side=32)
    state = copy.deepcopy(network).network.state_dict()
    torch.save({"student": state}, tmp_path / "best.pt")
    checkpoint.export(tmp_path / "student.safetensors", network.exported(state))
    for name in ("best.pt", "student.safetensors"):
        again = build_network(NetworkConfig("cifar_resnet8", str(tmp_path / name)), 10, side=32)
        assert again.normalization == network.normalization
        other = build_network(NetworkConfig("cifar_resnet8", str(tmp_path / name), mean=(0, 0, 0)), 10, side=32)
        assert other.normalization == ((0, 0, 0), given["std"])


def test_weights_of_features_alone_are_refused():
    with pytest.raises(UsageError, match="vgg16 IMAGENET1K_FEATURES are weights of its features alone"):
        build_network(NetworkConfig("vgg16", "IMAGENET1K_FEATURES"), 10, new_classifier=True)
