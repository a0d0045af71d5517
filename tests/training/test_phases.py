"""Runs of several phases: what each trains, where each begins, and that a stop between them is not felt."""

import json
import shutil
import signal
from dataclasses import replace

import pytest
import torch
from batches import batch_of
from conftest import ROOT, call, trained
from small_run import KILL_AT_STEP, KILL_BEFORE_RENAME, learned

import tasks
from configs.digits import cfg as digits_cfg
from figures.curves import read_metrics
from knowledge_distiller import KnowledgeDistiller, Term
from models.zoo import NetworkConfig, build_network
from recipe import Recipe
from teachers import Live
from terms import features_of
from training.loop import TrainConfig
from training.optimizer import OptimConfig
from training.phases import Phase
from training.state import State
from training.step import step_on
from utils.config import read_config
from utils.distributed import Ranks
from utils.errors import UsageError

# FitNet's hint for an epoch, factor transfer's paraphraser for another, then both terms for two.
CONFIG = """
from dataclasses import replace
from configs.digits import cfg as digits
from knowledge_distiller import Term
from teachers import TeacherConfig
from training.phases import Phase

base = digits("wsld")
slow = replace(base.last.optim, init_lr=0.01, schedule="step", milestones=(), warmup_epochs=0)
hint = Phase(1, {"hint": Term("fitnet", options={"hint": 2})}, slow)
paraphraser = Phase(1, {"ft": Term("ft", 1.0)}, slow, trainable=("terms.ft.paraphraser",))
terms = {"cross_entropy": Term("cross_entropy"), "ft": Term("ft", 200.0)}
last = Phase(5, terms, slow, trainable=("student", "terms.ft.translator"))
cfg = replace(
    base,
    name="run",
    teachers={"teacher": TeacherConfig("cifar_resnet14", expect=0)},
    phases={"hint": hint, "paraphraser": paraphraser, "last": last},
)
"""


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    path = tmp_path_factory.mktemp("config") / "phases.py"
    path.write_text(CONFIG)
    return path


def words(config, digits, runs, *more):
    settings = {
        "data.data_path": digits / "lmdb",
        "train_params.output_path": runs,
        "data.batch_size": 20,
        "data.num_workers": 0,
        "epochs": 2,
        "train_params.checkpoint_steps": 4,
        "train_params.print_freq": 6,
    }
    return ["--cfg", str(config), *(f"{key}={value}" for key, value in settings.items()), *more]


@pytest.fixture(scope="module")
def uninterrupted(config, digits, tmp_path_factory):
    runs = tmp_path_factory.mktemp("uninterrupted")
    trained(*words(config, digits, runs))
    return runs / "run"


def test_each_phase_logs_its_own_terms(uninterrupted):
    rows = [row for row in read_metrics(uninterrupted) if row["kind"] == "train"]
    terms = {(row["epoch"], *sorted(row.keys() & {"hint", "ft", "cross_entropy"})) for row in rows}
    assert {(row["epoch"], row["phase"]) for row in rows} == {(1, "hint"), (2, "paraphraser"), (3, "last"), (4, "last")}
    assert terms == {(1, "hint"), (2, "ft"), (3, "cross_entropy", "ft"), (4, "cross_entropy", "ft")}


@pytest.mark.parametrize(
    "breaking",
    [
        pytest.param(KILL_AT_STEP.format(step=5, signal="SIGKILL"), id="in the first phase"),
        pytest.param(KILL_AT_STEP.format(step=7, signal="SIGKILL"), id="right after it"),
        pytest.param(KILL_BEFORE_RENAME.format(number=6), id="between the epoch and its scores"),
        pytest.param(KILL_AT_STEP.format(step=20, signal="SIGKILL"), id="in the last phase"),
    ],
)
def test_a_killed_run_of_phases_resumes_bit_for_bit(config, digits, tmp_path, uninterrupted, breaking, train, altered):
    altered(breaking, *words(config, digits, tmp_path), code=-signal.SIGKILL)
    train(*words(config, digits, tmp_path))
    assert learned(tmp_path / "run") == learned(uninterrupted)


def test_two_ranks_go_through_all_phases(config, digits, tmp_path):
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    # Everything is trained in the last phase, but for the hint, which is no part of it and gets no gradient.
    more = ["trainable=()", "optim.init_lr=1e-5"]
    call(*torchrun, "train_with_distillation.py", *words(config, digits, tmp_path, *more))
    assert [row["epoch"] for row in read_metrics(tmp_path / "run") if row["kind"] == "val"] == [1, 2, 3, 4]


def state_of(phases, labels=10):
    """On a ResNet-8 and a ResNet-14 for pictures of 32 x 32 pixels."""
    phases = {str(number): phase for number, phase in enumerate(phases)}
    terms = replace(digits_cfg("student"), phases=phases).all_terms
    reads, reads_of = features_of(terms.values())
    torch.manual_seed(0)
    student = build_network(NetworkConfig("cifar_resnet8"), labels, reads, 32)
    teacher = build_network(NetworkConfig("cifar_resnet14"), labels, reads_of.get("teacher", ()), 32)
    example = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
    distiller = KnowledgeDistiller(student, {"teacher": Live(teacher)}, terms, example, torch.arange(20) % labels)

    return State(distiller, phases, TrainConfig(), tasks.get("single_label"), None, Ranks(0, 1, torch.device("cpu")))


def batch():
    images = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    return batch_of(images, torch.arange(4))


def moved(state):
    """Names of what one step changes, buffers too."""
    before = {name: value.clone() for name, value in state.distiller.state_dict().items()}
    state.distiller.train()
    step_on(state, state.distiller, batch(), 0.1)
    after = state.distiller.state_dict()
    return {name for name, value in before.items() if not torch.equal(value, after[name])}


def test_a_phase_trains_what_its_loss_reaches():
    changed = moved(state_of([Phase(1, {"hint": Term("fitnet", options={"hint": 1})})]))
    assert any(name.startswith("student.body.layer1") for name in changed)
    assert any(name.startswith("matches.hint") for name in changed)
    running = ("running_mean", "running_var", "num_batches_tracked")  # of batch norms behind the hint
    assert not [name for name in changed if "layer3" in name and not name.endswith(running)]
    assert not [name for name in changed if name.startswith(("teachers", "student.body.fc"))]


def test_a_phase_trains_what_it_names_and_what_is_frozen_keeps_its_statistics():
    changed = moved(state_of([Phase(1, {"ft": Term("ft")}, trainable=("terms.ft.paraphraser",))]))
    assert changed
    assert all(name.startswith("matches.ft.function.paraphraser.") for name in changed)
    head = moved(state_of([Phase(1, {"cross_entropy": Term("cross_entropy")}, trainable=("student.fc",))]))
    assert head == {"student.body.fc.weight", "student.body.fc.bias"}


def test_the_paraphraser_is_frozen_in_the_second_phase():
    first = Phase(1, {"ft": Term("ft")}, trainable=("terms.ft.paraphraser",))
    second = Phase(1, {"ft": Term("ft", 200.0)}, trainable=("student", "terms.ft.translator"))
    run = state_of([first, second])
    run.begin(1)
    changed = moved(run)
    assert not [name for name in changed if "paraphraser" in name]
    assert any("translator" in name for name in changed)
    assert any(name.startswith("student.") for name in changed)


def test_a_term_of_another_phase_is_frozen():
    terms = {"hint": Term("fitnet"), "cross_entropy": Term("cross_entropy")}
    first, second = (Phase(1, {name: term}) for name, term in terms.items())
    run = state_of([first, second])
    assert all(parameter.requires_grad for parameter in run.distiller.matches.parameters())
    run.begin(1)
    assert not any(parameter.requires_grad for parameter in run.distiller.matches.parameters())
    assert not any(module.training for module in run.distiller.matches["hint"].modules())
    with pytest.raises(UsageError, match=r"nothing to train is called terms\.hint"):
        state_of([first, replace(second, trainable=("terms.hint",))])


def test_a_schedule_begins_with_its_phase(config, digits, tmp_path, train):
    train(*words(config, digits, tmp_path, "optim.schedule=cosine", "optim.init_lr=0.02"))
    rates = [row["lr"] for row in read_metrics(tmp_path / "run") if row["kind"] == "train"]
    assert rates[:2] == [0.01, 0.01]
    assert rates[2] == pytest.approx(0.02 * (1 + torch.cos(torch.tensor(torch.pi * 5 / 12)).item()) / 2)


def test_what_does_not_go_together_is_refused(config, digits, tmp_path, train):
    with pytest.raises(UsageError, match=r"^terms\.ft differs from phases\.0\.terms\.ft: set both alike"):
        state_of([Phase(1, {"ft": Term("ft", options={"rate": 0.25})}), Phase(1, {"ft": Term("ft")})])
    with pytest.raises(UsageError, match=r"nothing to train is called student\.layer9; near: student\.layer"):
        state_of([Phase(1, {"hint": Term("fitnet")}, trainable=("student.layer9",))])
    with pytest.raises(UsageError, match=r"terms\.hint: the loss has no gradient for student\.fc; see trainable"):
        moved(state_of([Phase(1, {"hint": Term("fitnet")}, trainable=("student.fc",))]))
    # What is wrong in the last phase shows before the first.
    done = train(*words(config, digits, tmp_path, "trainable=teacher"), code=2)
    assert "nothing to train is called teacher" in done.stderr
    with pytest.raises(UsageError, match=r"called studnet; near: student"):
        state_of([Phase(1, {"hint": Term("fitnet")}, trainable=("studnet",))])
    assert not (tmp_path / "run").exists()


def test_the_order_of_phases_is_part_of_the_configuration(config, digits, tmp_path, uninterrupted, train):
    shutil.copytree(uninterrupted, tmp_path / "run")
    other = tmp_path / "other.py"
    swapped = '{"paraphraser": paraphraser, "hint": hint,'
    other.write_text(config.read_text().replace('{"hint": hint, "paraphraser": paraphraser,', swapped))
    done = train(*words(other, digits, tmp_path), code=2)
    assert "settings: phases ['hint', 'paraphraser', 'last'] -> ['paraphraser', 'hint', 'last']" in done.stderr
    assert "--fresh" in done.stderr


def test_the_best_score_is_one_of_the_last_phase(uninterrupted):
    scores = {row["epoch"]: row["top1"] for row in read_metrics(uninterrupted) if row["kind"] == "val"}
    best = json.loads(torch.load(uninterrupted / "best.pt", weights_only=True)["position"])["best"]
    assert best["epoch"] in (3, 4)
    assert best["top1"] == max(scores[3], scores[4])


def test_two_momenta_need_a_teacher_in_their_phase():
    dot = OptimConfig(optimizer="dot", nesterov=False)
    with pytest.raises(UsageError, match="dot needs a term with a teacher"):
        state_of([Phase(1, {"kd": Term("kd")}), Phase(1, {"cross_entropy": Term("cross_entropy")}, dot)])


def test_overrides_reach_into_a_first_phase(config, digits, tmp_path, train):
    old = "first.hint.epochs=2"  # as older versions called it
    done = train(*words(config, digits, tmp_path, old, "epochs=1"))
    assert done.stderr.count(f"{old} is now phases.hint.epochs=2") == 1
    written = json.loads((tmp_path / "run" / "config.json").read_text())
    assert written["phases"]["hint"]["epochs"] == 2
    assert len([row for row in read_metrics(tmp_path / "run") if row["kind"] == "val"]) == 4


@pytest.mark.parametrize("method", ["ft", "ab", "fsp", "fitnet_hint"])
def test_published_procedures_have_a_first_phase(method):
    recipe, _ = read_config(ROOT / "configs/cifar100.py", Recipe, [f"method={method}"])
    assert [phase.epochs for phase in recipe.phases.values()] == [30, 240]
    small = [replace(phase, epochs=1) for phase in recipe.phases.values()]
    run = state_of(small, labels=100)
    for number in range(2):
        run.begin(number)
        assert moved(run)


@pytest.mark.parametrize("method", ["ft", "ab", "fsp", "fitnet_hint"])
def test_a_published_first_phase_does_not_diverge(method):
    recipe, _ = read_config(ROOT / "configs/cifar100.py", Recipe, [f"method={method}"])
    run = state_of(recipe.phases.values(), labels=100)
    run.distiller.train()
    rate = run.phase.optim.init_lr
    losses = [step_on(run, run.distiller, batch(), rate)[0][0].loss.item() for _ in range(6)]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("kept", ["none", "statistics", "all"])
def test_norms_keep_what_they_are_asked_to(kept):
    changed = moved(state_of([Phase(1, {"cross_entropy": Term("cross_entropy")}, freeze_norms=kept)]))
    statistics = {name for name in changed if "running" in name or "tracked" in name}
    assert "student.body.conv1.weight" in changed
    assert bool(statistics) == (kept == "none")
    assert any("bn" in name for name in changed - statistics) == (kept != "all")
