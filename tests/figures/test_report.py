"""The page about runs: what is read, what is computed, and what the page says of it."""

import base64
import fcntl
import hashlib
import json
import re
import shutil
from dataclasses import replace
from functools import reduce
from html.parser import HTMLParser

import made_runs
import numpy as np
import pytest
from dataset_helpers import image_bytes
from made_runs import CLASSES, KEY, write_data, write_run
from splits import write_split

from dataset.store.record import UNLABELLED, Record
from figures.outputs import outputs_of_run
from figures.report import __main__ as report
from figures.report import measures, seen
from figures.report.data import Group, differing, duration, folders_of, grouped, read_run
from figures.report.page import page as write_page
from figures.report.seen import benches
from knowledge_distiller import Term
from utils.errors import DataError, UsageError

TASKS = ("single_label", "multi_label", "detection")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Splits of every task."""
    root = tmp_path_factory.mktemp("data")
    return {task: write_data(root / task, task) for task in TASKS}


@pytest.fixture(scope="module")
def runs(data, tmp_path_factory):
    """Two seeds with a teacher, and one without."""
    folder = tmp_path_factory.mktemp("runs")
    taught = [write_run(folder, data["single_label"], f"taught_{seed}", seed=seed) for seed in (0, 1)]
    return [*taught, write_run(folder, data["single_label"], "alone", teacher=False, seed=2)]


class Page(HTMLParser):
    """Tags with their attributes, and text."""

    def __init__(self, path):
        super().__init__()
        self.tags, self.text, self.source = [], [], path.read_text()
        self.feed(self.source)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text.append(data)

    def of(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]

    @property
    def titles(self):
        return {" ".join(text.split()) for text in self.text}

    @property
    def words(self):
        return " ".join(" ".join(self.text).split())


@pytest.fixture
def page(tmp_path):
    """A function that writes the page about run folders, and reads it."""

    def made(*folders, images=2000):
        output = tmp_path / "report.html"
        report.write(folders, output, images, ["python", "-m", "figures.report"])
        return Page(output)

    return made


def spoiled(run, tmp_path):
    """That run in a folder of its own."""
    return shutil.copytree(run, tmp_path / "spoiled" / run.name)


def test_runs_that_differ_in_their_seed_stand_together(runs):
    groups = grouped([read_run(run) for run in runs])
    assert [(group.name, len(group.runs)) for group in groups] == [("taught, 2 seeds", 2), ("alone", 1)]
    found = differing(groups)
    assert list(found) == ["teachers.teacher", "terms.kd"]
    assert found["terms.kd"] == ["kd x 0.5", ""]
    for name in ("num_workers", "flip"):
        groups[1].first.config["data"].pop(name)  # as of an older version
    del groups[1].first.config["student"]["options"]
    groups[1].first.config["data"]["batch_size"] = 8
    assert differing(groups) == {"data.batch_size": ["4", "8"], **found}


def test_what_a_run_says_of_itself(runs, tmp_path):
    run = read_run(runs[0])
    assert (run.epochs, run.of, run.primary, run.steps_an_epoch) == (3, 3, "top1", made_runs.STEPS)
    assert run.score == run.val[-1]["top1"]
    assert run.seconds_left == 0
    assert not run.notes
    folder = spoiled(runs[0], tmp_path)
    (folder / "best.pt").unlink()
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    (folder / "metrics.jsonl").write_text(f"{lines[0]}\n{{damaged\n{lines[1][:30]}")
    (folder / "environment.json").write_text("{")
    (folder / "facts.json").unlink()
    with (folder / ".lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        live = read_run(folder)
    assert live.is_training
    assert not read_run(folder).is_training
    assert (live.epochs, live.score, live.primary, len(live.train)) == (0, None, None, 1)
    assert live.seconds_left == pytest.approx(2.0 * (3 * live.steps_an_epoch - 2))  # 2 seconds a step
    notes = " ".join(live.notes)
    for text in ("1 line cannot be read", "no epoch has ended", "environment.json is damaged", "facts.json is missing"):
        assert text in notes
    (folder / "facts.json").write_text('{"data": {"train": {"images": "many"}}}')
    assert "facts.json is damaged" in " ".join(read_run(folder).notes)
    (folder / "config.json").write_text("{}")
    with pytest.raises(DataError, match=r"config\.json is damaged"):
        read_run(folder)


@pytest.mark.parametrize("value", [None, "x" * 100, [], 3.5, {"a": 1}])
@pytest.mark.parametrize(
    "key",
    [
        *("data", "data.batch_size", "student", "teachers", "teachers.teacher", "phases", "phases.training"),
        *("phases.training.epochs", "phases.training.terms", "phases.training.terms.kd", "train_params.seed"),
        *("phases.training.terms.kd.weight", "phases.training.terms.kd.objective"),
    ],
)
def test_a_setting_that_cannot_be_is_named(runs, tmp_path, key, value):
    config = json.loads((runs[0] / "config.json").read_text())
    *above, name = key.split(".")
    reduce(dict.get, above, config)[name] = value
    (tmp_path / "config.json").write_text(json.dumps(config))
    if (key, value) in (("phases.training.terms.kd.weight", 3.5), ("phases.training.terms.kd.objective", "x" * 100)):
        assert read_run(tmp_path).config == config
        return
    with pytest.raises(DataError, match=rf"config\.json is damaged \((it has no )?{re.escape(key)}"):
        read_run(tmp_path)


def test_a_manifest_stands_for_its_runs(runs, tmp_path):
    manifest = tmp_path / "last.manifest.json"
    folders = {"a": str(runs[0]), "b": "not/begun"}
    rows = {name: {"folder": folder, "state": "waiting"} for name, folder in folders.items()}
    manifest.write_text(json.dumps({"runs": rows}))
    assert folders_of([manifest, runs[0], runs[1]]) == runs[:2]
    with pytest.raises(UsageError, match=r"has no config\.json: name run folders"):
        folders_of([tmp_path])
    manifest.write_text("[]")
    with pytest.raises(DataError, match="no manifest of runs"):
        folders_of([manifest])


def test_an_image_is_decoded_once_and_a_network_sees_it_once(runs, monkeypatch):
    built, seen_by, decoded = [], [], []
    build, read = seen.build_teacher, seen.EvalLoader.__iter__

    def counting(config, *given, **options):
        built.append(config.weights)
        network = build(config, *given, **options)
        network.network.register_forward_hook(lambda *_: seen_by.append(config.weights))
        return network

    def loading(loader):
        for batch in read(loader):
            decoded.extend(batch.index.tolist())
            yield batch

    monkeypatch.setattr(seen, "build_teacher", counting)
    monkeypatch.setattr(seen.EvalLoader, "__iter__", loading)
    of_runs = [read_run(run) for run in runs]
    (bench,) = benches(of_runs, 2000)
    assert sorted(decoded) == [*range(12)]
    assert len(built) == len({*built}) == 4
    batches = 3  # of 5, 5 and 2 images
    assert {name: seen_by.count(name) for name in seen_by} == dict.fromkeys(
        [str(runs[0].parent / "teacher_single_label.pt"), *(str(run / "best.pt") for run in runs)], batches
    )
    for run in of_runs[:2]:
        student, teacher = outputs_of_run(run.path, teachers=True)
        np.testing.assert_allclose(bench.logits[bench.students[run.path]], student.logits, atol=1e-5)
        np.testing.assert_allclose(bench.taught_by(run), teacher.logits, atol=1e-5)
    assert bench.taught_by(of_runs[2]) is None
    (fewer,) = benches(of_runs[:1], 4)
    assert fewer.index.tolist() == [0, 3, 7, 11]


def test_missed_samples_are_those_the_teacher_gets_right(runs):
    groups = grouped([read_run(run) for run in runs])
    (bench,) = benches([run for group in groups for run in group.runs], 2000)
    teacher = bench.taught_by(groups[0].first)
    known = ~measures.wrong(bench, teacher)
    places = {*measures.missed(bench, groups, 100)}
    wrong = [np.mean([measures.wrong(bench, one) for one in measures.logits_of(bench, group)], 0) for group in groups]
    assert places == {n for n in range(12) if known[n] and any(one[n] >= 0.5 for one in wrong)}
    only = grouped([read_run(runs[2])])
    (bench,) = benches(only[0].runs, 2000)
    (logits,) = bench.logits.values()
    losses = measures.losses(bench, logits)
    order = measures.missed(bench, only, 5)
    every = sorted(np.flatnonzero(measures.wrong(bench, logits)), key=lambda n: -losses[n])
    assert order == every[:5]


def test_the_page_holds_everything_and_runs_nothing(runs, page):
    made = page(*runs)
    assert not made.of("script")
    assert not [attrs for _, attrs in made.tags if any(name.startswith("on") or name == "style" for name in attrs)]
    links = [attrs[name] for _, attrs in made.tags for name in ("src", "href") if name in attrs]
    assert {link.partition(",")[0] for link in links if not link.startswith("#")} == {"data:", "data:image/jpeg;base64"}
    policy = next(attrs["content"] for attrs in made.of("meta") if attrs.get("http-equiv") == "Content-Security-Policy")
    style = re.search("<style>(.*?)</style>", made.source, re.DOTALL)[1]
    assert f"'sha256-{base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()}'" in policy
    assert "default-src 'none'" in policy
    assert CLASSES[0] in made.words
    assert f"{KEY}/val" in made.words
    assert "a=<b>" in made.words
    assert {"Summary", "Settings", "Curves", "Classes", "Confusion", "Agreement with the teacher"} <= made.titles
    assert {"validation top1", "training loss", "kd, before its weight", "learning rate"} <= made.titles
    assert "seeds 0, 1" in made.words


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("teacher", [True, False])
def test_runs_of_every_task(data, page, tmp_path, task, teacher):
    made = page(write_run(tmp_path / "runs", data[task], task=task, teacher=teacher))
    assert "What is missing" not in made.words
    assert "ended after 3 epochs" in made.words
    assert ("Confusion" in made.text) == (task == "single_label")
    assert ("Agreement with the teacher" in made.text) == (teacher or task == "detection")
    assert "Classes" in made.text
    assert ("AP (%)" in made.words) == (task != "single_label")
    if task != "detection":
        assert made.of("img")
    elif not teacher:  # an untrained detector finds little, and there is something to be found
        assert len(made.of("image")) >= 4
        assert len(made.of("use")) == len(made.of("image"))


def test_weights_of_wsld_where_a_run_has_the_term(data, page, tmp_path):
    run = write_run(tmp_path / "runs", data["single_label"], terms={"soft": Term("wsld", 2.5)})
    assert {"weights of WSLD", "regularisation samples"} <= page(run).titles


def test_what_is_not_there_is_said_and_left_out(data, runs, page, tmp_path):
    moved = shutil.copytree(data["single_label"], tmp_path / "data")
    run = write_run(tmp_path / "runs", moved)
    (tmp_path / "runs/teacher_single_label.pt").unlink()
    made = page(run)
    assert "teachers.teacher cannot be built and is left out" in made.words
    assert "Missed by the student" in made.text
    assert "Agreement with the teacher" not in made.text
    shutil.rmtree(moved)
    made = page(run)
    assert "its validation images cannot be had" in made.words
    assert "Curves" in made.text
    assert not made.of("img")
    (run / "best.pt").unlink()
    (run / "metrics.jsonl").unlink()
    made = page(run, runs[2])
    assert "no best.pt yet" in made.words
    assert "metrics.jsonl has no line yet" in made.words
    assert made.of("img")  # of the other


def test_a_store_is_no_hindrance_where_the_weights_are_at_hand(runs, page, tmp_path):
    folder = spoiled(runs[0], tmp_path)
    config = json.loads((folder / "config.json").read_text())
    config["teachers"]["teacher"]["store"] = str(tmp_path / "store")
    (folder / "config.json").write_text(json.dumps(config))
    assert "Agreement with the teacher" in page(folder).text


def test_a_run_of_an_older_version(runs, page, tmp_path):
    folder = spoiled(runs[0], tmp_path)
    config = json.loads((folder / "config.json").read_text())
    phases = config.pop("phases")["training"]
    config["train_params"]["epochs"] = phases["epochs"]
    config |= {"terms": phases["terms"], "optim": phases["optim"]}
    for name in ("head", "taps", "detector"):
        del config["student"][name], config["teachers"]["teacher"][name]
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "environment.json").unlink()
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    old = [{k: v for k, v in row.items() if not k.startswith("time") and k != "seconds"} for row in lines]
    (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in old))
    made = page(folder)
    assert {"Curves", "Agreement with the teacher"} <= made.titles
    assert "Where the time goes" not in made.text


def test_a_long_log_makes_no_large_page(runs, page, tmp_path):
    folder = spoiled(runs[0], tmp_path)
    (row, *_) = (folder / "metrics.jsonl").read_text().splitlines()
    rows = [{**json.loads(row), "step": step, "epoch": 1 + step // 100} for step in range(1, 20_000)]
    (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(one)}\n" for one in rows))
    assert len(page(folder, images=2).source) < 400_000


class Counted(list):
    """A log that counts how often it is gone through."""

    times = 0

    def __iter__(self):
        self.times += 1
        return super().__iter__()


def test_a_long_log_is_not_gone_through_for_each_of_its_lines(runs):
    run = read_run(runs[0])
    times = []
    for length in (1, 20):
        logs = {name: Counted(length * getattr(run, name)) for name in ("train", "val")}
        write_page([Group("one", [replace(run, **logs)], 0)], [], {}, [])
        times.append([one.times for one in logs.values()])
    assert times[0] == times[1]


def test_images_without_labels_are_said_to_be_and_left_out(data, page, tmp_path):
    moved = shutil.copytree(data["single_label"], tmp_path / "data")
    shutil.rmtree(moved / "lmdb/val")
    images = [Record(str(n), image_bytes(n, 40, 36), UNLABELLED) for n in range(12)]
    write_split(moved / "lmdb/val", images, classes=CLASSES, size=(40, 36))
    run = write_run(tmp_path / "runs", moved)
    made = page(run)
    assert "no network is looked at: they have no labels" in made.words
    assert "Curves" in made.text
    assert not made.of("img")
    with pytest.raises(UsageError, match=f"{run}: its validation images have no labels"):
        outputs_of_run(run, teachers=True)
    assert outputs_of_run(run, teachers=True, split="train")


def test_the_command_says_what_is_wrong(runs, tmp_path, monkeypatch, capsys):
    def call(*words):
        monkeypatch.setattr("sys.argv", ["", *map(str, words)])
        try:
            report.main()
        except SystemExit as end:
            return end.code, capsys.readouterr().err
        return 0, capsys.readouterr().out

    output = tmp_path / "page.html"
    code, out = call(runs[2], "--output", output, "--images", 3)
    assert (code, out.startswith(f"{output}: 1 run, ")) == (0, True)
    assert "3 of 12 validation images" in Page(output).words
    assert call(tmp_path, "--output", output)[0] == 2
    assert call(runs[0], "--images", 0)[0] == 2
    assert "name a .html file" in call(runs[0], "--output", tmp_path / "page.pdf")[1]
    (tmp_path / "folder.html").mkdir()
    monkeypatch.setattr(report, "read_run", None)  # which is called before all work
    code, err = call(runs[0], "--output", tmp_path / "folder.html")
    assert (code, "folder.html cannot be written: Is a directory" in err) == (2, True)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0 s"), (59.4, "59 s"), (61, "1 min 1 s"), (7200, "2 h"), (90_000, "1 d 1 h")]
)
def test_durations_in_words(seconds, text):
    assert duration(seconds) == text
