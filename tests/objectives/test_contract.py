"""How objectives are declared and found, and a toy one that trains."""

import importlib

import pytest
import torch
from batches import batch_of
from torch import Tensor, nn

import objectives
from knowledge_distiller import KnowledgeDistiller, Term
from models.zoo import NetworkConfig, build_network
from objectives import contract
from teachers import Live
from utils.errors import UsageError


def test_the_contract_reads_the_signature():
    entry = objectives.get("wsld")
    assert entry.inputs == ("student", "teacher", "labels")
    assert [*entry.options] == ["temperature"]
    assert entry.needs_teacher
    assert not objectives.get("cross_entropy").needs_teacher


def test_what_logits_mean_is_declared():
    meaning = {name: one.logits for name, one in contract._REGISTRY.items() if one.is_ours}
    assert {name for name in meaning if meaning[name] == "any"} == {"detection", "kd", "lshfm", "squared_error"}
    of_each_class = {"asymmetric", "bce", "mce", "mld", "partial_softmax"}
    assert {name for name in meaning if meaning[name] == "sigmoid"} == of_each_class
    assert all(objectives.get(name).reads == "logits" for name in of_each_class)
    assert [name for name in meaning if meaning[name] == "dense"] == ["crosskd"]
    assert {*meaning.values()} == {"any", "dense", "sigmoid", "softmax"}


def test_a_file_of_ones_own_registers_by_being_imported(tmp_path, monkeypatch):
    monkeypatch.setattr(contract, "_REGISTRY", dict(contract._REGISTRY))
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "my_objectives.py").write_text(
        "from objectives import objective\n\n"
        "@objective(reads='stage3')\n"
        "def my_distance(student, teacher, labels, index, *, power=2.0, scale=1.0):\n"
        "    return scale * (student - teacher).abs().pow(power).mean()\n"
    )
    module = importlib.import_module("my_objectives")
    entry = objectives.get("my_distance")
    assert (entry.reads, entry.needs_teacher) == ("stage3", True)
    assert entry.inputs == ("student", "teacher", "labels", "index")
    assert [*entry.options] == ["power", "scale"]
    assert entry.made is module.my_distance
    importlib.reload(module)  # the same file may come again, as a config that is read twice does
    assert objectives.get("my_distance").made is module.my_distance


def test_a_name_may_be_given_and_views_are_read_by_theirs(monkeypatch):
    monkeypatch.setattr(contract, "_REGISTRY", dict(contract._REGISTRY))

    @objectives.objective("both", reads="logits")
    def compared(student, student_other_logits, student_pooled, teacher_stages, teacher_norms, labels): ...

    entry = objectives.get("both")
    assert (entry.name, entry.made) == ("both", compared)
    assert (entry.views_of("student"), entry.views_of("teacher")) == ({"other"}, set())
    assert (entry.features("student"), entry.features("teacher")) == ({"pooled"}, {"stage*", "stage*_pre"})
    with pytest.raises(UsageError, match="no objective 'compared'"):
        objectives.get("compared")
    assert objectives.get("crld").views_of("student") == objectives.get("crld").views_of("teacher") == {"strong"}
    assert objectives.get("kd").views_of("student") == set()


def test_what_is_read_of_detectors():
    for name, paired, student, teacher in (
        ("pkd", "fpn", {"fpn*"}, {"fpn*"}),
        ("lshfm_windows", "tower", {"tower*"}, {"tower*"}),
        ("crosskd", "", {"cross_tower*", "cross_box_tower*"}, {"cross_logits", "cross_boxes"}),  # made of the former
        ("box_regression", "", set(), set()),  # of what detectors give anyway
        ("detection", "", set(), set()),
        ("ofd", "stage", {"stage*_pre"}, {"stage*_pre"}),
        ("kd", "", set(), set()),
        ("fcfd", "stage", {"stage*", "last"}, {"stage*", "last"}),  # which the rest of a network is read by too
    ):
        entry = objectives.get(name)
        assert (entry.paired, entry.features("student"), entry.features("teacher")) == (paired, student, teacher), name
    assert not objectives.get("detection").needs_teacher
    assert objectives.get("detection").asks("student") == {"losses"}
    assert objectives.get("box_regression").asks("student") == {"box_deltas", "labels", "box_targets"}
    assert objectives.get("crosskd").asks("teacher") == {"cross_logits", "cross_boxes", "logits", "dense_boxes"}
    assert objectives.get("lshfm").asks("teacher") == {"pooled", "logits"}
    assert objectives.get("fcfd").asks("student") == {"stage*", "last", "rest"}
    assert not objectives.get("crosskd").views_of("teacher")


def test_unknown_and_doubled_names_are_refused():
    with pytest.raises(UsageError, match="wsld"):
        objectives.get("wsdl")

    def kd(student, teacher): ...

    with pytest.raises(ValueError, match="registered already"):
        objectives.objective(reads="logits")(kd)
    with pytest.raises(ValueError, match=r"objective kd is registered already, by objectives\.logits"):
        objectives.objective("kd", reads="logits")(objectives.get("wsld").made)


def test_a_toy_objective_of_one_file_trains_through_the_facade(monkeypatch):
    monkeypatch.setattr(contract, "_REGISTRY", dict(contract._REGISTRY))

    @objectives.objective("toy_distance", reads="pooled", width=contract.COUNT)
    class Toy(nn.Module):
        """Mean squared distance of linear embeddings."""

        def __init__(self, student: Tensor, teacher: Tensor, *, width: int = 8) -> None:
            super().__init__()
            self.embed = nn.Linear(student.shape[1], width)
            self.fixed = nn.Linear(teacher.shape[1], width).requires_grad_(False)

        def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
            return (self.embed(student) - self.fixed(teacher)).square().mean()

    torch.manual_seed(0)
    student, teacher = (build_network(NetworkConfig(f"cifar_resnet{n}"), 4, ["pooled"], 32) for n in (8, 14))
    images = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    batch = batch_of(images, torch.arange(4))
    terms = {"toy": Term("toy_distance", 2.0, options={"width": 3})}
    distiller = KnowledgeDistiller(student, {"teacher": Live(teacher)}, terms, images)
    learned = [parameter for parameter in distiller.parameters() if parameter.requires_grad]
    embed = [*distiller.matches["toy"].function.embed.parameters()]
    assert {len(weight) for weight in embed} == {3}
    assert {*map(id, embed)} < {*map(id, learned)}
    optimizer, losses = torch.optim.SGD(learned, 0.05), []
    for _ in range(5):
        loss = distiller(batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.8 * losses[0]
