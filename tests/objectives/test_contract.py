"""How objectives are declared and found, and a toy one that trains."""

import importlib

import pytest

import objectives
from objectives import contract
from utils.errors import UsageError


def test_the_contract_reads_the_signature():
    entry = objectives.get("wsld")
    assert entry.inputs == ("student", "teacher", "labels")
    assert [*entry.options] == ["temperature"]
    assert entry.needs_teacher
    assert not objectives.get("cross_entropy").needs_teacher


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
    importlib.reload(module)  # the same file may come again, as a page that is read twice does
    assert objectives.get("my_distance").made is module.my_distance


def test_unknown_and_doubled_names_are_refused():
    with pytest.raises(UsageError, match="wsld"):
        objectives.get("wsdl")

    def kd(student, teacher): ...

    with pytest.raises(ValueError, match="registered already"):
        objectives.objective(reads="logits")(kd)
