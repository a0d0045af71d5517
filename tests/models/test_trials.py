"""Networks of a user's own that go wrong once they are trained: refused before, or named with their line."""

import sys
import threading

import pytest
import torch

from knowledge_distiller import KnowledgeDistiller, Term
from models.fitting import load_state
from models.trial import Origin, try_out
from models.weights import packed, read_weights
from models.zoo import NetworkConfig, build_network
from training.average import Average
from training.step import _alike_in_each_step
from utils.errors import RankLost, UsageError

SIDE, CLASSES = 32, 7
NETS = """

import sys

import torch
from torch import nn

from models.outputs import Body, Outputs

class Net(nn.Module):
    def __init__(self, num_classes, does="", limit=0):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8)
        self.fc = nn.Linear(8, num_classes)
        self.does, self.limit, self.calls = does, limit, 0
        if does == "share":
            self.again = self.fc
        if does == "leave out":
            self.unused = nn.Linear(4, 4)
        if does == "meta":
            self.empty = nn.Linear(3, 3, device="meta")
        if does == "lazy":
            self.empty = nn.LazyLinear(3)
        if does == "sparse":
            self.register_buffer("mask", torch.eye(3).to_sparse())

    def forward(self, images):
        self.calls += 1
        does, several = self.does, len(images) > 1
        if does in ("raise", "exit") and self.calls > self.limit:
            sys.exit(0) if does == "exit" else {}["a key"]
        if does == "raise in training" and self.training:
            raise RuntimeError("first line\\nsecond line")
        if does == "write":
            images.add_(1)
        maps = self.norm(self.conv(images)).relu()
        if does == "write later" and self.training:
            maps.mul_(2)
        if does == "draw" and self.training:
            maps = nn.functional.dropout(maps, 0.5)
        self.seen = maps
        logits = self.fc(maps.mean((2, 3)))
        if does == "write later" and self.training:
            maps.exp_()
        if does == "pair in training" and self.training:
            return logits, maps
        if does == "fewer in training" and self.training:
            return logits[:, :-1]
        if does == "fewer of several" and several:
            return logits[:1]
        return logits.long() if does == "whole numbers" else logits

class Stateful(Net):
    def get_extra_state(self):
        return {"a": 1}

    def set_extra_state(self, state):
        pass

class Bare(Body):
    def __init__(self, **options):
        super().__init__()
        self.net = Net(**options)

    def forward(self, images):
        return Outputs(self.net(images))

class Lacking(Body):
    features = ("last", "half")

    def __init__(self, **options):
        super().__init__()
        self.net = Net(**options)

    def forward(self, images):
        logits = self.net(images)
        return Outputs(logits, {"last": self.net.seen} if self.training else {"last": self.net.seen, "half": logits})
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A folder on Python's path with `nets_of_a_trial.py`."""
    (tmp_path / "nets_of_a_trial.py").write_text(NETS)
    monkeypatch.setattr("sys.path", [*sys.path, str(tmp_path)])
    yield tmp_path
    sys.modules.pop("nets_of_a_trial", None)


def built(does="", name="Net", *, trained=True, **options):
    config = NetworkConfig(f"nets_of_a_trial:{name}", options={"does": does, **options})
    return build_network(config, CLASSES, (), SIDE, new_classifier=trained)


@pytest.mark.parametrize(
    ("does", "message"),
    [
        ("raise in training", r"\[2, 3, 32, 32\] in training mode: RuntimeError: first line second.*trial\.py, line"),
        ("pair in training", "returns tuple for images .* in training mode, where logits"),
        ("fewer in training", r"returns \[2, 6\] for 2 images in training mode, where logits \[2, 7\]"),
        ("write later", r"in training mode, in its backward pass: RuntimeError: .*inplace"),
        ("meta", "empty.weight is on meta: make it on the CPU"),
        ("lazy", "empty.weight has no shape yet"),
        ("sparse", "its state dict has mask, a tensor of sparse_coo and float32"),
    ],
)
def test_a_student_that_could_not_be_trained_or_saved_is_refused(mine, does, message):
    with pytest.raises(UsageError, match=rf"nets_of_a_trial:Net.*{message}"):
        built(does)


@pytest.mark.parametrize(
    ("does", "message"),
    [
        ("fewer of several", r"returns \[1, 7\] for 2 images, where logits \[2, 7\]"),
        ("whole numbers", "returns int64 for one image"),
        ("write", "writes to the images that it is given"),
        ("raise", r"KeyError: 'a key' \(.*nets_of_a_trial\.py, line \d+\)$"),
        ("exit", r"nets_of_a_trial\.py, line \d+, ends the program"),
    ],
)
def test_a_teacher_likewise_for_several_images(mine, does, message):
    with pytest.raises(UsageError, match=message):
        built(does, trained=False)
    built("raise in training", trained=False)  # which it never is


def test_what_a_state_dict_or_a_body_lacks_is_named(mine):
    for trained in (True, False):
        with pytest.raises(UsageError, match="its state dict has _extra_state, an object of dict"):
            built(name="Stateful", trained=trained)
    with pytest.raises(UsageError, match="lists half in its features and gives none of that name in training mode"):
        built(name="Lacking")
    with pytest.raises(UsageError, match="is a Body without `features`"):
        built(name="Bare")


@pytest.mark.parametrize("does", ["raise", "exit"])
def test_an_error_at_a_later_call_has_the_line(mine, does):
    network = built(does, limit=6, trained=False)
    images = torch.zeros(2, 3, SIDE, SIDE, dtype=torch.uint8)
    while network.network.calls < 6:
        network.predict(images)
    with pytest.raises(UsageError, match=r"nets_of_a_trial\.py, line \d+"):
        network.predict(images)


def test_a_lost_rank_and_what_is_known_already_pass():
    images = torch.zeros(1, 3, 2, 2)

    def raising(error):
        def network(_):
            raise error

        return network

    for error in (RuntimeError("Connection closed by peer"), torch.OutOfMemoryError("full"), RankLost("gone")):
        with pytest.raises(type(error)) as found:
            Origin("a:B", "").given(raising(error), images)
        assert found.value is error


def test_the_trial_leaves_no_trace(mine):
    from nets_of_a_trial import Net

    torch.manual_seed(3)
    network = Net(CLASSES, "draw").train()
    network(torch.randn(4, 3, SIDE, SIDE)).sum().backward()
    network.zero_grad()
    for parameter in network.parameters():
        parameter.grad = None
    network.norm.eval()
    state, drawn = {name: value.clone() for name, value in network.state_dict().items()}, torch.get_rng_state()
    origin = Origin("a:B", "")
    assert try_out(origin, network, SIDE, CLASSES, trained=True) == origin
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
    assert torch.equal(drawn, torch.get_rng_state())
    assert all(parameter.grad is None for parameter in network.parameters())
    assert network.training
    assert not network.seen.requires_grad  # it can be copied still


def test_batch_norms_that_ranks_synchronise_are_not_tried_on_a_cpu(mine, monkeypatch):
    from nets_of_a_trial import Net

    monkeypatch.setattr("torch.distributed.is_initialized", lambda: True)
    network = torch.nn.SyncBatchNorm.convert_sync_batchnorm(Net(CLASSES))
    assert try_out(Origin("a:B", ""), network, SIDE, CLASSES, trained=True).whole


def test_parameters_of_two_names_are_saved_and_loaded(mine, tmp_path):
    network = built("share")
    state = network.network.state_dict()
    (tmp_path / "shared.safetensors").write_bytes(packed(state))
    read = read_weights(tmp_path / "shared.safetensors")
    assert all(torch.equal(value, state[name]) for name, value in read.items())
    assert read.keys() == state.keys() >= {"again.weight", "fc.weight"}
    other = built("share").network
    load_state(other, read, tmp_path / "shared.safetensors", CLASSES)
    assert other.again is other.fc
    assert torch.equal(other.fc.weight, network.network.fc.weight)


def test_ranks_look_for_parameters_that_have_no_part_in_the_logits(mine):
    example, terms = torch.zeros(2, 3, SIDE, SIDE, dtype=torch.uint8), {"cross_entropy": Term("cross_entropy")}
    for does, whole in (("", True), ("leave out", False)):
        assert KnowledgeDistiller(built(does), {}, terms, example).reaches_everything is whole
    with pytest.raises(UsageError, match="left parameters out in a step"), _alike_in_each_step():
        raise RuntimeError("Expected to have finished reduction in the prior iteration before starting a new one.")


def test_an_average_of_what_cannot_be_copied_is_refused(mine):
    network = built()
    Average(network, 0.9)
    network.network.lock = threading.Lock()
    with pytest.raises(UsageError, match=r"ema_decay and average_last need a copy .*cannot pickle"):
        Average(network, 0.9)
