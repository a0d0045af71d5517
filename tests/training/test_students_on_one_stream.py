"""Several students that learn from one stream of batches: each as alone, at the cost of one."""

import gc
import json
import signal
from pathlib import Path

import pytest
import torch
from at_step import at_step
from batches import batch_of
from ranks import Plain
from small_run import KILL_AT_STEP, learned

from figures.runs import list_runs
from knowledge_distiller import KnowledgeDistiller, Term
from models.outputs import IMAGENET, Outputs
from models.zoo import Network, NetworkConfig
from procedure import read_command_line
from students import grid, students
from teachers import Live, Views
from utils.errors import UsageError

# One has a term that draws, another student, two phases, and fewer epochs; checkpoints are at different steps.
CONFIG = """
from dataclasses import replace

from configs import digits
from knowledge_distiller import Term
from models.zoo import NetworkConfig
from students import Students
from training.phases import Phase

PHASES = {"one": Phase(1, digits.WSLD, digits.OPTIM),
          "two": Phase(1, {**digits.LABELS, "crd": Term("crd", options={"contrasts": 8})}, digits.OPTIM)}
base = digits.cfg("wsld")
often, seldom = (replace(base.train_params, checkpoint_steps=steps) for steps in (3, 4))
cfg = Students({
    "long": replace(base, name="long", phases={"all": replace(base.last, epochs=3)}, train_params=often),
    "short": replace(base, name="short", student=NetworkConfig("cifar_resnet14"), phases=PHASES, train_params=seldom),
})
"""
NAMES = ("long", "short")


@pytest.fixture(scope="module")
def words(digits, tmp_path_factory):
    """The command line of a config with two students, for a folder of runs."""
    config = tmp_path_factory.mktemp("config") / "two.py"
    config.write_text(CONFIG)

    def words(runs, *more):
        data = [f"data.data_path={digits / 'lmdb'}", "data.batch_size=20", "data.num_workers=0"]
        teacher = ["teachers.teacher.weights=none", "teachers.teacher.expect=0"]
        own = [f"train_params.output_path={runs}", "train_params.print_freq=4"]
        return ["--cfg", str(config), *data, *teacher, *own, *more]

    return words


def train(*words):
    import train_with_distillation as door

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["", *words])
        door.main()
    gc.collect()  # shards that were open


@pytest.fixture(scope="module")
def alone(words, tmp_path_factory):
    """What each learns by itself."""
    runs = tmp_path_factory.mktemp("alone")
    for name in NAMES:
        train(*words(runs, "--only", name))
    return {name: learned(runs / name) for name in NAMES}


def test_each_learns_bit_for_bit_what_it_learns_alone_and_the_teacher_sees_a_batch_once(
    words, tmp_path, run, alone, monkeypatch
):
    batches = []
    forward = Live.forward
    monkeypatch.setattr(Live, "forward", lambda *given: batches.append(given[2]) or forward(*given))
    code, output, errors = run(*words(tmp_path))
    assert not code, errors
    assert {name: learned(tmp_path / name) for name in NAMES} == alone
    assert batches == ["weak"] * 18  # 3 epochs of 6
    assert "short: epoch 2/3, step 12: lr" in output
    assert "long: epoch 3: top1" in output
    rows = json.loads((tmp_path / "long.comparison.json").read_text())
    assert [(row["name"], row["epochs"], row["of"]) for row in rows] == [("long", 3, 3), ("short", 2, 2)]
    assert [row["differs"]["student.name"] for row in rows] == ["cifar_resnet8", "cifar_resnet14"]
    assert (tmp_path / "long.comparison.png").exists()
    assert output.index("short: best after epoch") < output.index("long: epoch 3") < output.index("differs in")
    code, again, _ = run(*words(tmp_path))
    assert not code
    assert again.count("ended after step") == 2
    assert again[again.index("differs in") :] == output[output.index("differs in") :]


def test_a_killed_stream_resumes_bit_for_bit_where_each_student_stands_also_one_alone(
    words, tmp_path, run, alone, altered
):
    kill = KILL_AT_STEP.format(step=10, signal="SIGKILL")  # the first student takes it, the second does not
    altered(kill, *words(tmp_path), code=-signal.SIGKILL)
    code, output, errors = run(*words(tmp_path, "--only", "short", "epochs=1"))  # its second phase, to its end
    assert not code, errors
    assert "resumes after step 8" in output
    assert learned(tmp_path / "short") == alone["short"]
    code, output, errors = run(*words(tmp_path))
    assert not code, errors
    assert "resumes after step 9" in output
    assert {name: learned(tmp_path / name) for name in NAMES} == alone


def test_a_student_that_errs_costs_the_others_nothing(words, tmp_path, run, alone, monkeypatch):
    def err():
        raise UsageError("mine:Net does not take images")

    with monkeypatch.context() as patch:
        at_step(10, err, patch)
        code, _, errors = run(*words(tmp_path))
    assert (code, errors.splitlines()[-1]) == (2, "UsageError: long: mine:Net does not take images")
    code, output, errors = run(*words(tmp_path))
    assert not code, errors
    assert output.count("resumes after step 9") == 2  # the last checkpoint of one, where the other was
    assert {name: learned(tmp_path / name) for name in NAMES} == alone


def test_students_that_stand_at_different_steps_go_on_together(words, tmp_path, run, alone, monkeypatch):
    with monkeypatch.context() as patch:
        at_step(10, lambda: signal.raise_signal(signal.SIGTERM), patch)
        code, _, errors = run(*words(tmp_path, "--only", "long"))
    assert code == 75, errors
    code, output, errors = run(*words(tmp_path))
    assert not code, errors
    assert "long: resumes after step 10" in output
    assert "short: a new run" in output
    assert {name: learned(tmp_path / name) for name in NAMES} == alone


def test_one_that_diverges_stops_alone(words, tmp_path, run, alone):
    code, output, errors = run(*words(tmp_path, "short.phases.one.optim.init_lr=1e30", "short.optim.init_lr=1e30"))
    assert code == 4
    assert errors.count("Diverged: short: the loss is not finite at step 2") == 1
    assert errors.splitlines()[-1].startswith("Diverged: short: not trained to the end")
    assert learned(tmp_path / "long") == alone["long"]
    assert "ended after 0" in output
    assert not (tmp_path / "short/last.pt").exists()
    states = {Path(one.folder).name: one.state for one in list_runs([tmp_path])}
    assert states == {"short": "diverged", "long": "done"}


def test_a_signal_saves_all(words, tmp_path, run, monkeypatch):
    at_step(3, lambda: signal.raise_signal(signal.SIGTERM), monkeypatch)
    code, _, errors = run(*words(tmp_path))
    assert code == 75
    assert "stopped by a signal after step 3; the same command resumes\n" in errors
    assert all((tmp_path / name / "last.pt").exists() for name in NAMES)


@pytest.mark.parametrize(("is_shared", "times"), [(True, 1), (False, 2)])
def test_a_teacher_that_looks_at_a_student_is_asked_for_each(is_shared, times):
    asked = []

    def teacher(views, view, student):
        asked.append(student)
        return Outputs(torch.zeros(4, 5))

    teacher.is_shared = is_shared
    batch = batch_of(torch.zeros(4, 3, 8, 8, dtype=torch.uint8), torch.arange(4))
    shared = Views(batch)
    for student in (Outputs(torch.ones(4, 5)), Outputs(torch.ones(4, 5))):
        views = Views(batch, shared)
        given = [views.outputs_of(teacher, "weak", student) for _ in range(2)]
        assert views.all_outputs_of(teacher) == given[:1]
    assert len(asked) == times


def test_compiled_students_share_what_a_teacher_gives():
    torch.manual_seed(0)
    teacher, *nets = (Network(Plain(), IMAGENET, 5) for _ in range(3))
    example, live = torch.zeros(2, 3, 8, 8, dtype=torch.uint8), Live(teacher)
    both = [KnowledgeDistiller(net, {"teacher": live}, {"kd": Term("kd")}, example).train() for net in nets]
    batches = [batch_of(torch.randint(256, (4, 3, 8, 8), dtype=torch.uint8), torch.arange(4)) for _ in range(2)]
    shared = [Views(batch) for batch in batches]
    alone = [one(batch).loss for batch in batches for one in both]
    for one in both:
        one.compile(backend="eager", fullgraph=True)
    compiled = [one(views.batch, views).loss for views in shared for one in both]
    torch.testing.assert_close(compiled, alone)
    assert [len(views._given) for views in shared] == [1, 1]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["short.data.batch_size=40"], "long and short cannot share a stream: data.batch_size is 20 and 40. Set both"),
        (["short.train_params.seed=1"], "train_params.seed is 0 and 1"),
        (["short.teachers.teacher.weights=x.pth"], "teachers.teacher.weights is none and x.pth"),
        (["train_params.wandb_project=x"], "long: train_params.wandb_project: Weights & Biases takes one run"),
        (["long.student.weights=run:short"], "long: student.weights waits for another run"),
        (["name=same"], "long and short have one folder"),
        (["--grid", "terms"], "--grid terms: expected a setting"),
        (["--grid", "epoch=1,2"], "no setting 'epoch'; near: epochs"),
        (["--at_a_time", "2"], "--at_a_time is for runs one after the other"),
        (["--cfg", "configs/coco_l2d.py"], "has several runs, one after the other"),
    ],
)
def test_what_cannot_share_a_stream_is_refused_by_name(words, monkeypatch, more, message):
    monkeypatch.setattr("sys.argv", ["", *words("runs", *more)])
    with pytest.raises(UsageError) as refused:
        read_command_line("")
    assert message in str(refused.value)


def test_a_grid_is_every_combination_and_names_its_folders(words, monkeypatch):
    monkeypatch.setattr("sys.argv", ["", "--cfg", "configs/digits.py", "--grid", "method=student,wsld", "name=a"])
    runs = read_command_line("")[0].runs
    assert [*runs] == ["a_method=student", "a_method=wsld"]
    assert not runs["a_method=student"].teachers
    base = runs["a_method=wsld"]
    weight, temperature = "terms.wsld.weight", "terms.wsld.options.temperature"
    made = grid(base, {weight: [1, 2.5], temperature: [2, 4]})
    assert [*made][1:3] == ["a_method=wsld_weight=1_temperature=4", "a_method=wsld_weight=2.5_temperature=2"]
    assert made["a_method=wsld_weight=1_temperature=4"].all_terms["wsld"].options == {"temperature": 4.0}
    (name,) = grid(base, {weight: [1], "terms.cross_entropy.weight": [2], "student.weights": ["/tmp/a b.pth"]})
    assert name == "a_method=wsld_wsld.weight=1_cross_entropy.weight=2_student.weights=-tmp-a-b.pth"
    with pytest.raises(UsageError, match="without students"):
        grid(base, {weight: []})
    small = students(base, {"small": NetworkConfig("cifar_resnet8")})
    assert [*small] == ["a_method=wsld_small"]
