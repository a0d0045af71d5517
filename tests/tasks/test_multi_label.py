"""The multi-label task: its targets, what it refuses, chosen classes, teachers that know others, tables of scores."""

import csv
from dataclasses import replace

import numpy as np
import pytest
import torch
from batches import batch_of
from conftest import call
from small_multi_label import words, write_data

import tasks
from configs.digits import cfg as digits
from dataset.config import DataConfig
from dataset.feed.targets import Present, Window
from dataset.loader import EvalLoader, TrainLoader, open_split
from dataset.store.chosen import Chosen, relabelled
from dataset.store.record import Boxes
from knowledge_distiller import Term
from models.outputs import Outputs
from networks import build_distiller
from objectives.multi_label import mld
from teachers import TeacherConfig, places_of
from training.phases import Phase
from utils.distributed import Ranks
from utils.errors import DataError, UsageError

CPU = torch.device("cpu")
BOXES = Boxes(((0.0, 0.0, 1.0, 1.0),) * 3, (2, 0, 2), (True, False, True), (False, True, False))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("squares"))


def split(folder, **more):
    return open_split(DataConfig(str(folder / "lmdb"), **more), "train", "lmdb")


@pytest.mark.parametrize(
    ("target", "row"),
    [((0, 3), [1, 0, 0, 1]), ((), [0] * 4), ((1, -1, -4), [-1, 1, 0, -1]), (2, [0, 0, 1, 0]), (BOXES, [1, 0, -1, 0])],
)
def test_targets_have_three_values(target, row):
    targets, out = Present(4), {"present": np.full((2, 4), 9, np.int8)}
    assert targets.layout(2) == {"present": (np.int8, (2, 4))}
    targets.put(target, Window(0, 0, 1, 1), False, out, 1)
    assert out["present"].tolist() == [[9] * 4, row]


@pytest.mark.parametrize("target", [(0, 4), (-6,), 4, "cat"])
def test_a_target_of_other_classes_is_damage(target):
    with pytest.raises(DataError):
        Present(4).put(target, Window(0, 0, 1, 1), False, {"present": np.zeros((1, 4), np.int8)}, 0)


def test_batches_hold_what_the_records_do(folder):
    samples = split(folder)
    config = DataConfig("x", 8, 0, input_size=24, type_of_data_aug="squash", cutout=0.5, randaugment=True)
    loader = TrainLoader(samples, config, 0, 0, 1, CPU, tasks.get("multi_label").targets(samples.classes))
    seen = 0
    for batch in loader.epoch(0):
        assert batch["present"].dtype == torch.int8
        assert np.array_equal(batch["present"].numpy(), samples.labels[batch.index.numpy()])
        seen += (batch["present"] < 0).sum()
    assert seen == 4


def test_classes_are_chosen_and_put_in_another_order(folder):
    whole, some = split(folder), split(folder, classes=("d", "b"))
    assert (some.classes, len(some)) == (("d", "b"), len(whole))
    assert np.array_equal(some.labels, whole.labels[:, [3, 1]])
    targets = Present(2)
    for index in range(len(some)):
        out = targets_of(targets, some.read(index).target)
        assert np.array_equal(out, some.labels[index])
    assert some.digest() != whole.digest()
    loader = EvalLoader(some, DataConfig("x", num_workers=2, input_size=24), 0, 1, CPU, targets)
    rows = torch.cat([batch["present"].clone() for batch in loader])
    loader.close()
    assert np.array_equal(rows.numpy(), some.labels)


def targets_of(targets, target):
    out = {"present": np.zeros((1, 2), np.int8)}
    targets.put(target, Window(0, 0, 1, 1), False, out, 0)
    return out["present"][0]


def test_boxes_of_chosen_classes_stay():
    assert relabelled(BOXES, {2: 0}) == Boxes(((0.0, 0.0, 1.0, 1.0),) * 2, (0, 0), (True, True), (False, False))
    assert relabelled((0, 2, -2), {2: 1, 1: 0}) == (1, -1)


def test_classes_that_are_not_there_are_named(folder):
    with pytest.raises(UsageError, match=r"data\.classes: the data has no 'zebra'; it has 'a', 'b', 'c', 'd'"):
        split(folder, classes=("a", "zebra"))
    with pytest.raises(UsageError, match=r"data\.classes names 'a' twice"):
        split(folder, classes=("a", "a"))
    nameless = split(folder)
    nameless.classes = ()
    with pytest.raises(UsageError, match="has no 'a'; it has none"):
        Chosen(nameless, ("a",))


def test_one_label_an_image_cannot_be_chosen_from(digits):
    with pytest.raises(UsageError, match="these have one label each"):
        Chosen(open_split(DataConfig(str(digits / "lmdb")), "train", "lmdb"), ("1",))


def test_where_a_teacher_knows_its_classes():
    data = ["cat", "dog", "owl"]
    assert places_of([], data, "t") is None
    assert places_of(data, data, "t") is None
    assert places_of(["0", "1", "2"], data, "t") is None  # as where nothing names them
    assert places_of(["owl", "cat", "dog"], data, "t") == [2, 0, 1]
    assert places_of(["owl"], data, "t") == [2]
    with pytest.raises(UsageError, match=r"teachers\.t knows 1 class that the data lacks: 'ape'; the data has 'cat'"):
        places_of(["cat", "ape", "owl"], data, "teachers.t")
    with pytest.raises(UsageError, match="t: 'owl' stands there twice"):
        places_of(["owl", "owl"], data, "t")


def recipe(**terms):
    plain = digits("student")
    terms = {name: Term(*one) if isinstance(one, tuple) else Term(one) for name, one in terms.items()}
    teachers = digits("wsld").teachers
    return replace(plain, task="multi_label", teachers=teachers, phases={"training": Phase(1, terms)})


@pytest.mark.parametrize(
    ("objective", "says"),
    [
        (
            "dkd",
            r"dkd takes logits for those of a softmax, and task=multi_label has those of a sigmoid: use .*bce.*mld",
        ),
        ("cross_entropy", r"cross_entropy takes logits for those of a softmax"),
        ("crd", r"crd learns from labels, and task=multi_label has present"),
    ],
)
def test_objectives_of_one_label_are_refused_with_what_to_use(objective, says):
    with pytest.raises(UsageError, match=says):
        recipe(it=objective).check_terms()


def test_those_that_make_sense_are_not():
    recipe(kd="kd", hard="bce", features="pkt", hashes="lshfm", maps="reviewkd", error="squared_error").check_terms()
    single = replace(recipe(it="mld"), task="single_label")
    with pytest.raises(
        UsageError, match=r"mld takes logits for those of a sigmoid, and task=single_label .*: use .*dkd"
    ):
        single.check_terms()
    with pytest.raises(UsageError, match=r"bce takes|bce learns from present"):
        replace(recipe(it="bce"), task="single_label").check_terms()


def test_an_ensemble_averages_the_probabilities_of_each_class_by_itself(folder):
    teachers = {name: TeacherConfig(name) for name in ("cifar_resnet8", "cifar_resnet14")}
    cfg = replace(recipe(it=("mld", 1.0, (*teachers,))), teachers=teachers)
    distiller = build_distiller(cfg, split(folder), Ranks(0, 1, CPU)).eval()
    images = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    given = distiller(batch_of(images, present=torch.zeros(4, 4, dtype=torch.int8)))
    shares = [one.predict(images).logits.sigmoid() for one in distiller.teachers.values()]
    assert not torch.allclose(*shares, atol=0.01)
    torch.testing.assert_close(given.values["it"], mld(given.student.logits, (sum(shares) / 2).logit()))


def test_data_of_another_task_is_refused(folder, digits, run, tmp_path):
    command = [*words(folder, tmp_path), "data.batch_size=8"]
    assert run("--cfg", "configs/digits.py", *command[2:])[2].startswith(
        "UsageError: train holds several classes an image: set task=multi_label, or task=detection where "
    )
    with pytest.raises(UsageError, match=r"task_options\.average_precision=area: one of step"):
        tasks.get("multi_label", {"average_precision": "area"})
    with pytest.raises(UsageError, match=r"task_options\.threshold=2.*at least 0"):
        tasks.get("multi_label", {"threshold": 2})


def test_chance_and_running_scores_by_hand():
    task = tasks.get("multi_label", {"threshold": 0.5})
    labels = np.array([[1, 0, 0], [1, -1, 0], [0, 0, 0], [1, 0, 0]], np.int8)
    assert task.chance(labels) == pytest.approx(100 * (3 / 4 + 1 / 4) / 2)  # the last class never occurs
    logits = torch.tensor([[3.0, -3.0, -3.0], [3.0, -3.0, -3.0], [-3.0, -3.0, -3.0], [-3.0, 3.0, 3.0]])
    batch = batch_of(torch.zeros(4, 3, 1, 1), present=torch.from_numpy(labels))
    assert task.running(Outputs(logits), batch)["F1"] == pytest.approx(1 + 2 / 3 + 1 + 0)


def test_a_run_leaves_tables_and_eval_writes_them_with_the_predictions(folder, run, tmp_path):
    given = words(folder, tmp_path, "method=cpsd")
    (tmp_path / "parts.json").write_text('{"parts": [["a", "b"], ["c", "d"]]}')
    code, out, err = run(*given, f"cgp={tmp_path / 'parts.json'}", "dgp=", "--only", "cgp1")
    assert code == 0, err
    folder_of_run = tmp_path / "coco_tiny_448_parts_1"
    rows = list(csv.DictReader((folder_of_run / "per_class.csv").read_text().splitlines()))
    assert [row["class"] for row in rows[:2]] == ["c", "d"]
    assert (folder_of_run / "per_class.png").exists()
    code, out, err = run("--eval", str(folder_of_run), "--tables", str(tmp_path / "tables"))
    assert code == 0, err
    assert "mAP" in out
    names = sorted(path.relative_to(tmp_path / "tables").as_posix() for path in (tmp_path / "tables").rglob("*.*"))
    assert names == ["per_class.csv", "per_class.png", "results/comp1_cls_test_c.txt", "results/comp1_cls_test_d.txt"]
    assert len((tmp_path / "tables/results/comp1_cls_test_d.txt").read_text().splitlines()) == 12
    # Its weights know two of the four classes: it is evaluated on these, by name.
    weights = ["--eval", str(folder_of_run / "student.safetensors"), "--tables", str(tmp_path / "x")]
    whole = run(*words(folder, tmp_path), *weights)
    assert whole[0] == 0, whole[2]
    assert whole[1].partition(": ")[2].splitlines()[0] == out.partition(": ")[2].splitlines()[0]


def test_result_files_are_scored(folder, run, tmp_path):
    given = [*words(folder, tmp_path, "epochs=1"), "--only", "teacher"]
    assert run(*given)[0] == 0
    out = run("--eval", str(tmp_path / "voc_tiny_l2d_teacher"), "--tables", str(tmp_path / "t"))[1]
    command = ["-m", "evaluation.voc_files", str(tmp_path / "t/results"), str(folder / "lmdb/val")]
    scored = call(*command, "--average_precision=step")
    assert scored.stdout.splitlines()[-1] == f"mean of 4 classes {out.partition('mAP ')[2].partition(',')[0]}"
