"""Students with DeiT's second classifier: which of the two gives what, how their weights are exported, and a run."""

import pytest
import safetensors.torch
import torch
from batches import batch_of
from torch.nn import functional as F

from knowledge_distiller import KnowledgeDistiller, Term
from models.heads import HeadConfig
from models.outputs import Outputs
from models.weights import read_weights
from models.zoo import NetworkConfig, build_network
from teachers import TeacherConfig, build_teacher
from utils.errors import UsageError

timm = pytest.importorskip("timm")
NAME = "timm/deit_tiny_distilled_patch16_224"
DISTILLED = HeadConfig("distilled")
IMAGES = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def student():
    torch.manual_seed(0)
    return build_network(NetworkConfig(NAME, head=DISTILLED), 10, ["token", "stage4"], 32)


@torch.no_grad()
def test_the_first_classifier_gives_the_logits_in_training_and_the_average_is_scored(student):
    trained, scored = (student.train(mode).predict(IMAGES) for mode in (True, False))
    torch.testing.assert_close(scored.features["token"], trained.features["token"])
    torch.testing.assert_close(scored.logits, (trained.logits + trained.features["token"]) / 2)
    assert (trained.logits - trained.features["token"]).abs().max() > 0.01
    assert scored.features.keys() == {"token", "stage4"}


@torch.no_grad()
def test_what_is_pooled_is_what_the_first_classifier_is_given():
    for name, side in ((NAME, 32), ("timm/levit_128s", 224)):  # a linear layer, and one behind a norm
        images = torch.randint(0, 256, (2, 3, side, side), dtype=torch.uint8)
        network = build_network(NetworkConfig(name, head=DISTILLED), 10, ["pooled", "token"], side).train()
        given = network.predict(images)
        made = given.features["pooled"] @ given.context["head_weight"].T + given.context["head_bias"]
        torch.testing.assert_close(made, given.logits)
        assert (made - given.features["token"]).abs().max() > 0.01


@torch.no_grad()
def test_a_teacher_of_some_classes_teaches_the_second_classifier_these_alone():
    torch.manual_seed(0)
    names = [*"abcdefghij"]
    config = TeacherConfig("cifar_resnet8", classes=("g", "b", "d"))
    teacher = build_teacher(config, names, (), 32, knows_all=False)
    student = build_network(NetworkConfig(NAME, head=DISTILLED), 10, ["token"], 32, classes=tuple(names))
    terms = {"token": Term("distillation_token")}
    distiller = KnowledgeDistiller(student, {"teacher": teacher}, terms, IMAGES)
    token, (b, d, g) = student.predict(IMAGES).features["token"], teacher.predict(IMAGES).logits.T
    taught = torch.stack([b, d, g], 1).argmax(1)
    value = distiller(batch_of(IMAGES, torch.zeros(2, dtype=torch.long))).values["token"]
    torch.testing.assert_close(value, F.cross_entropy(token[:, [1, 3, 6]], taught))


def test_what_is_by_class_must_be_one_a_class():
    for name, message in (
        ("token", "token is not one a class$"),
        ("label_embeddings", r"label_embeddings is not one a class: of the head label_embeddings set head\.options"),
    ):
        with pytest.raises(UsageError, match=message):
            Outputs(torch.zeros(2, 5), {name: torch.zeros(2, 4, 3)}).of_classes(torch.tensor([1, 0]))


@torch.no_grad()
def test_exported_weights_are_those_of_the_library(student, tmp_path):
    scored = student.eval().predict(IMAGES).logits
    state = student.network.state_dict()
    torch.save(state, tmp_path / "training.pth")
    safetensors.torch.save_file(student.exported(state), tmp_path / "exported.safetensors")
    for file in ("training.pth", "exported.safetensors"):
        again = build_network(NetworkConfig(NAME, str(tmp_path / file), head=DISTILLED), 10, side=32)
        torch.testing.assert_close(again.eval().predict(IMAGES).logits, scored)
    plain = timm.create_model(NAME.removeprefix("timm/"), num_classes=10, img_size=32).eval()
    plain.load_state_dict(read_weights(tmp_path / "exported.safetensors"))
    torch.testing.assert_close(plain(student.normalize(IMAGES)), scored)


def test_a_network_without_a_second_classifier_is_refused():
    with pytest.raises(UsageError, match=r"^head\.name=distilled: ResNet has no distillation token, as timm/deit_tiny"):
        build_network(NetworkConfig("resnet18", head=DISTILLED), 10, side=32)
    with pytest.raises(UsageError, match=r"^head\.name=distilled: PoolingVisionTransformer has no distillation token"):
        build_network(NetworkConfig("timm/pit_ti_224", head=DISTILLED), 10)
    with pytest.raises(UsageError, match="gives no token; it gives logits"):
        build_network(NetworkConfig(NAME), 10, ["token"], 32)


def test_a_run_trains_both(digits, tmp_path, run):
    config = tmp_path / "config.py"
    config.write_text(
        "from dataclasses import replace\n"
        "from configs.digits import cfg as digits\n"
        "from knowledge_distiller import Term\n"
        "from models.heads import HeadConfig\n"
        "from models.zoo import NetworkConfig\n"
        "from teachers import TeacherConfig\n"
        'teachers = {"teacher": TeacherConfig("cifar_resnet8", expect=0)}\n'
        "base = digits()\n"
        f'student = NetworkConfig("{NAME}", head=HeadConfig("distilled"))\n'
        'terms = {"cross_entropy": Term("cross_entropy", 0.5), "token": Term("distillation_token", 0.5)}\n'
        'phases = {"distillation": replace(base.last, terms=terms)}\n'
        'cfg = replace(base, name="run", teachers=teachers, student=student, phases=phases)\n'
    )
    words = ["--cfg", str(config), f"data.data_path={digits / 'lmdb'}", f"train_params.output_path={tmp_path}"]
    words += ["data.batch_size=60", "data.num_workers=0", "epochs=1"]
    code, shown, _ = run(*words)
    assert not code
    assert "token " in shown
    exported = read_weights(tmp_path / "run" / "student.safetensors")
    assert exported.keys() == timm.create_model(NAME.removeprefix("timm/"), num_classes=10).state_dict().keys()
