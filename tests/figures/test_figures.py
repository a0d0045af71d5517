"""Pictures from a run folder."""

import dataclasses
import json
import math
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import trained
from matplotlib import pyplot as plt
from matplotlib.text import Text
from PIL import Image
from safetensors.torch import load_file

from dataset.class_names import _of_cifar100, _of_imagenet, superclasses
from dataset.loader import open_split
from figures import bias_variance, correlation, curves, detections, outputs, per_class, regularization, tsne
from figures.correlation import mean_logits
from figures.outputs import NetworkOutputs, outputs_of_run
from figures.report.data import read_run
from figures.report.seen import benches
from objectives.logits import kd, wsld_weights
from training import checkpoint
from utils import plots
from utils.errors import UsageError


@pytest.fixture(scope="module")
def run(digits, tmp_path_factory):
    """A student of one epoch, with its teacher."""
    folder = tmp_path_factory.mktemp("runs")
    words = [f"data.data_path={digits / 'lmdb'}", "train_params.epochs=1", "data.batch_size=40", "data.num_workers=0"]
    words += [f"train_params.output_path={folder}", "data.input_size=16", "data.val_resize=16"]
    alone = ["--cfg", "configs/cifar100.py", "method=none", "student=resnet8", "name=teacher"]
    trained(*alone, *words)
    weights = f"teachers.teacher.weights={folder / 'teacher' / 'student.safetensors'}"
    distilled = [
        "--cfg",
        "configs/cifar100.py",
        "method=lshfm",
        "teacher=resnet8",
        "student=resnet8",
        "name=distilled",
        weights,
    ]
    distilled.append("teachers.teacher.expect=0")
    trained(*distilled, *words)
    return folder / "distilled"


def test_what_the_networks_see(run):
    student, teacher = outputs_of_run(run, teachers=True)
    assert (student.name, teacher.name) == ("student", "teacher")
    assert student.logits.shape == (41, 10)
    assert teacher.pooled.shape == (41, 64)
    assert np.array_equal(student.labels, teacher.labels)
    assert not np.allclose(student.logits, teacher.logits)
    spread = outputs_of_run(run, teachers=False, images=11)
    assert [len(one.labels) for one in spread] == [11]
    assert np.array_equal(spread[0].logits, student.logits[::4])
    (training,) = outputs_of_run(run, teachers=False, split="train")
    assert len(training.labels) == 120


@pytest.mark.parametrize("best_of", ["student", "ema"])
def test_pictures_are_of_the_weights_whose_scores_are_the_best(run, tmp_path, best_of):
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    saved = checkpoint.load(folder / "best.pt")
    saved["ema"] = {name: torch.zeros_like(tensor) for name, tensor in saved["student"].items()}
    saved["position"] = json.dumps({**json.loads(saved["position"]), "best_of": best_of})
    checkpoint.save(folder / "best.pt", saved)
    (student,), (same,) = (outputs_of_run(one, teachers=False, images=4) for one in (folder, run))
    assert np.array_equal(student.logits, same.logits) == (best_of == "student")


def changed(run, folder, **teacher):
    """A copy of the run with other settings of its teacher."""
    shutil.copytree(run, folder)
    config = json.loads((run / "config.json").read_text())
    config["teachers"]["teacher"] |= teacher
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_a_teacher_that_knows_the_classes_in_another_order_is_put_in_order(run, tmp_path, monkeypatch):
    def named(*given):
        samples = open_split(*given)
        samples.classes = tuple("abcdefghij")
        return samples

    monkeypatch.setattr(outputs, "open_split", named)
    bare = tmp_path / "bare.pth"  # without notes on the classes
    torch.save(load_file(run.with_name("teacher") / "student.safetensors"), bare)
    same = changed(run, tmp_path / "same", weights=str(bare))
    other = changed(run, tmp_path / "other", weights=str(bare), classes=[*"jihgfedcba"])
    (_, teacher), (_, turned) = (outputs_of_run(one, teachers=True, images=4) for one in (same, other))
    assert np.array_equal(turned.logits, teacher.logits[:, ::-1])


def test_a_teacher_without_a_classifier_has_features_alone(run, tmp_path, ran):
    folder = changed(run, tmp_path / "run", head={"name": "none", "options": {}})
    student, teacher = outputs_of_run(folder, teachers=True, images=12)
    assert (teacher.logits.shape, teacher.pooled.shape) == ((12, 0), (12, 64))
    tsne.draw([student, teacher], tmp_path / "tsne.png")
    done = ran(correlation.main, folder, code=2)
    assert "teacher has no classifier, and so no logits to compare" in done.stderr
    (bench,) = benches([read_run(folder)], 12)
    assert bench.teachers == {folder: {}}
    assert bench.runs[0].notes == ["teachers.teacher gives features alone and is left out"]


def test_pictures_are_drawn(run, ran):
    ran(tsne.main, run, "--teachers", "--images", 30)
    assert "teacher: greatest difference" in ran(correlation.main, run).stdout
    assert "120 training images\nteacher: regularisation samples" in ran(regularization.main, run).stdout
    both = f"both={run},{run.with_name('teacher')}"
    assert "both: bias " in ran(bias_variance.main, both, "--output", run / "bias_variance.png").stdout
    wides = {"tsne.png": 1440, "correlation.png": 720, "regularization.png": 1320, "bias_variance.png": 960}
    for name, wide in wides.items():
        with Image.open(run / name) as image:
            assert image.width == wide
            assert len(np.unique(np.asarray(image.convert("RGB")).reshape(-1, 3), axis=0)) > 50


@pytest.mark.parametrize("figure", [tsne, correlation, regularization, bias_variance, curves, detections, per_class])
def test_a_file_that_cannot_be_written_is_named_before_the_work(figure, tmp_path, ran, monkeypatch):
    (tmp_path / "taken.png").mkdir()
    for name in ("outputs_of_run", "detections_of_run", "draw"):
        monkeypatch.setattr(figure, name, None, raising=False)
    of = f"a={tmp_path / '0'},{tmp_path / '1'}" if figure is bias_variance else tmp_path
    done = ran(figure.main, of, "--output", tmp_path / "taken.png", code=2)
    assert f"--output: {tmp_path / 'taken.png'} cannot be written: Is a directory" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["taken.png"]


@pytest.mark.parametrize("name", ["$x_1^$ {0} %s", "$", r"\frac $a$"])
def test_a_name_is_no_formula(name, shown, tmp_path):
    figure, axes = plots.plt.subplots()
    axes.plot([1, 2], [1, 2], label=name)
    axes.set(title=name, xlabel=name, xticks=[1.0], xticklabels=[name])
    axes.legend()
    plots.save(figure, tmp_path / "a.png")
    assert (tmp_path / "a.png").exists()
    assert not any(text.get_parse_math() for text in figure.findobj(Text))


def test_all_pictures_are_drawn_with_one_setting():
    rooms = ("dataset", "export", "figures", "tools", "training", "utils")
    files = [path for room in rooms for path in Path(plots.__file__).parents[1].joinpath(room).rglob("*.py")]
    drawing = [path.name for path in files if re.search("pyplot|matplotlib.use|parse_math", path.read_text())]
    assert drawing == ["plots.py"]


def test_mean_logits_by_hand():
    logits = np.array([[1, 2, 3], [3, 4, 7], [5, 6, 7]], np.float32)
    outputs = NetworkOutputs("student", logits, logits, np.array([0, 0, 2]), ("a", "b", "c"))
    assert mean_logits(outputs).tolist() == [[0, 5], [5, 0]]  # of those that have images, a and c
    every = dataclasses.replace(outputs, labels=np.array([1, 0, 2]))
    assert mean_logits(every).tolist() == [[0, 4, 7], [1, 0, 3], [5, 6, 0]]


@pytest.fixture
def shown(monkeypatch):
    """Pictures that were drawn, before they are closed."""
    figures = []
    monkeypatch.setattr(plt, "close", figures.append)
    yield figures
    monkeypatch.undo()
    plt.close("all")


def outputs_in(labels, classes):
    """Of a network that knows them."""
    pooled = np.random.default_rng(0).normal(size=(len(labels), 4)).astype(np.float32)
    return NetworkOutputs("student", pooled, np.eye(len(classes), dtype=np.float32)[labels], labels, tuple(classes))


IMAGENET = [*_of_imagenet()]


@pytest.mark.parametrize(
    ("classes", "labels", "named"),
    [
        (IMAGENET, [0, 217] * 6, ["tench", "English springer"]),  # those present, of many
        (IMAGENET, range(0, 1000, 20), {"others", *superclasses(IMAGENET[::20])} - {"other"}),
        (sorted(_of_cifar100()), range(100), {*_of_cifar100().values()}),
        ([f"$part {number}" for number in range(60)], range(60), 21),  # twenty of them, and the others
        ([f"part {number}" for number in range(20)], range(20), 20),
    ],
)
def test_t_sne_names_no_more_classes_than_one_can_tell_apart(classes, labels, named, shown, tmp_path, monkeypatch):
    monkeypatch.setattr(tsne.TSNE, "fit_transform", lambda _, pooled: pooled[:, :2])
    tsne.draw([outputs_in(np.array(labels), classes)] * 2, tmp_path / "tsne.png")
    ((left, right),) = (figure.axes for figure in shown)
    assert left.get_legend() is None
    texts = [text.get_text() for text in right.get_legend().get_texts()]
    assert len(texts) == named if isinstance(named, int) else (texts == named or {*texts} == named)
    colors = {tuple(dots.get_facecolor()[0]) for dots in left.collections}
    assert len(colors) == len(left.collections) == len(texts)
    assert sum(len(dots.get_offsets()) for dots in left.collections) == len(labels)


@pytest.mark.parametrize(("labels", "names"), [([0, 217] * 3, ["tench", "English springer"]), (range(0, 1000, 5), 100)])
def test_correlation_names_the_classes_that_are_present(labels, names, shown, tmp_path):
    labels = np.array(labels)
    found = correlation.draw(outputs_in(labels, IMAGENET), [outputs_in(labels, IMAGENET)], tmp_path / "a.png")
    assert found == [("student", 0, 0)]
    axes = shown[0].axes[0]
    ticks = [text.get_text() for text in axes.get_yticklabels()]
    assert ticks == names or (len(ticks), ticks[0]) == (names, "tench")
    assert axes.images[0].get_array().shape == (len({*labels}),) * 2


def test_a_folder_that_is_no_run_is_named(tmp_path, ran):
    done = ran(tsne.main, tmp_path, code=2)
    assert f"{tmp_path} is not a run folder with a best.pt" in done.stderr


def logits_of(*probabilities):
    """[N, K]"""
    return torch.tensor(probabilities, dtype=torch.float64).log()


def test_bias_and_variance_by_hand():
    runs, labels = [logits_of([0.8, 0.2]), logits_of([0.2, 0.8])], torch.tensor([0])
    bias, variance = bias_variance.bias_and_variance(runs, labels)  # p_bar = (1/2, 1/2), Z = 2 sqrt(0.8 * 0.2)
    torch.testing.assert_close(bias, torch.tensor([math.log(2)]).double())
    torch.testing.assert_close(variance, torch.tensor([-math.log(0.8)]).double())


@pytest.mark.parametrize("scale", [1, 1000])
def test_bias_and_variance_add_up_to_the_expected_cross_entropy(scale):
    torch.manual_seed(0)
    logits, labels = scale * torch.randn(4, 30, 7, dtype=torch.float64), torch.randint(7, (30,))
    bias, variance = bias_variance.bias_and_variance(list(logits), labels)
    log_p = logits.log_softmax(2)
    log_bar = log_p.mean(0).log_softmax(1)
    torch.testing.assert_close(bias + variance, -log_p[:, torch.arange(30), labels].mean(0))
    torch.testing.assert_close(variance, (log_bar.exp() * (log_bar - log_p)).sum(2).mean(0))
    same = bias_variance.bias_and_variance([logits[0] + shift for shift in (0, 5)], labels)[1]
    torch.testing.assert_close(same, torch.zeros(30).double(), rtol=0, atol=1e-9)


def test_runs_that_do_not_compare_are_named():
    for group in ("alone=a", "alone=a,a", "a,b"):
        with pytest.raises(UsageError, match=f"{group}: a group is NAME=RUN,RUN with at least two runs"):
            bias_variance.parse_group(group)
    outputs = NetworkOutputs("student", np.zeros((2, 4)), np.zeros((2, 3)), np.array([0, 1]), ("a", "b", "c"))
    others = {
        "other classes": [{"classes": ("a", "b", "x")}, {"logits": np.zeros((2, 1000))}],
        "other validation images": [{"labels": np.array([1, 0])}],
    }
    for message, changes in others.items():
        for change in changes:
            with pytest.raises(UsageError, match=f"y has {message} than x"):
                bias_variance.check_comparable({Path("x"): outputs, Path("y"): dataclasses.replace(outputs, **change)})
    with pytest.raises(UsageError, match="1000 outputs and the student 3"):
        regularization.measure(outputs, dataclasses.replace(outputs, logits=np.zeros((2, 1000))))


def test_gradients_by_hand():
    student, teacher = (
        logits_of([0.8, 0.2], [0.6, 0.4], [0.99, 0.01]),
        logits_of([0.6, 0.4], [0.8, 0.2], [0.9999, 1e-4]),
    )
    a, b = regularization.gradients(student, teacher, torch.tensor([0, 0, 0]), 2)
    # At T = 2 the odds of the true class are square roots.
    p = {odds: math.sqrt(odds) / (1 + math.sqrt(odds)) for odds in (4, 1.5, 99, 9999)}
    expected = [2 * (p[4] - p[1.5]) + 0.2, 2 * (p[1.5] - p[4]) + 0.4, 2 * (p[99] - p[9999]) + 0.01]
    torch.testing.assert_close(a, torch.tensor([-0.2, -0.4, -0.01]).double())
    torch.testing.assert_close(b, torch.tensor(expected).double())
    assert (b.abs() > a.abs()).tolist() == [True, False, True]
    assert (b > a.abs()).tolist() == [True, False, False]


@pytest.mark.parametrize("temperature", [1, 2.5, 8])
def test_gradients_are_those_of_the_losses(temperature):
    torch.manual_seed(0)
    student, teacher = 3 * torch.randn(2, 40, 6, dtype=torch.float64)
    labels = torch.randint(6, (40,))
    student.requires_grad_()
    hard = torch.nn.functional.cross_entropy(student, labels, reduction="sum")
    soft = 40 * kd(student, teacher, temperature=temperature)
    expected = [torch.autograd.grad(loss, student, retain_graph=True)[0] for loss in (hard, soft - hard)]
    for mine, theirs in zip(regularization.gradients(student.detach(), teacher, labels, temperature), expected):
        torch.testing.assert_close(mine, theirs[torch.arange(40), labels])


def test_regularisation_samples_at_temperature_1_are_those_of_low_weight():
    torch.manual_seed(0)
    student, teacher = 3 * torch.randn(2, 500, 6, dtype=torch.float64)
    labels = torch.randint(6, (500,))
    a, b = regularization.gradients(student, teacher, labels, 1)
    low = wsld_weights(student, teacher, labels) < 1 - math.exp(-1)
    assert 100 < low.sum() < 400
    assert torch.equal(b.abs() > a.abs(), low)
    assert torch.equal(b > a.abs(), low)


def test_gradients_of_extreme_logits():
    student = torch.tensor([[1e4, 0], [0, 1e4], [50, 0]], dtype=torch.float64)
    teacher = torch.tensor([[0, 1e4], [1e4, 0], [51, 0]], dtype=torch.float64)
    a, b = regularization.gradients(student, teacher, torch.tensor([0, 0, 0]), 1)
    assert a.tolist() == pytest.approx([0, -1, -math.exp(-50)], rel=1e-12, abs=0)
    assert b.tolist() == pytest.approx([1, 0, math.exp(-51)], rel=1e-12, abs=0)
