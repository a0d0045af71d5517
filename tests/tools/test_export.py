"""What leaves a run gives what the run's student gave, and says so; nothing half written is left."""

import json
import re
import signal
from functools import partial

import pytest
import torch
from conftest import call
from small_students import pixels

import tools.export as tool
from export import formats
from export.facts import facts_of
from export.student import WEIGHTS, about_of, student_of
from training.run_folder import RunFolder

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
ALL = ["README.md", "model.onnx", "model.pt2", "model.safetensors"]


@pytest.fixture
def export(command):
    """tools.export in this process: its exit code, and what it printed."""
    return partial(command, tool.main)


@pytest.fixture(scope="module")
def exported(finished, tmp_path_factory):
    """The run, and the folder that it was exported to."""
    output = tmp_path_factory.mktemp("exported")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["", str(finished), "--output", str(output)])
        tool.main()
    return finished, output


def test_every_file_gives_the_students_logits_for_any_number_of_images(exported):
    run, folder = exported
    assert sorted(path.name for path in folder.iterdir()) == ALL
    student = student_of(run)
    again = student_of(folder)
    assert again.classes == student.classes == tuple("0123456789")
    programs = {
        "weights": lambda images: again.network.predict(images).logits,
        "pt2": formats.program_of(folder / "model.pt2"),
        "onnx": formats.onnx_program_of(folder / "model.onnx"),
    }
    for count in (1, 5):
        images = pixels(count, 16, seed=count)
        expected = student.network.predict(images).logits
        for name, program in programs.items():
            assert (program(images) - expected).abs().max() < 1e-4 * expected.abs().max(), name


def test_the_notes_and_the_card_say_what_the_run_says(exported):
    run, folder = exported
    facts, card = facts_of(run), (folder / "README.md").read_text()
    about = about_of(folder / WEIGHTS)
    best = RunFolder(run).best_scores()
    kept = json.loads((run / "facts.json").read_text())["data"]["val"]["sha256"]
    assert json.loads(about["data"])["val"]["sha256"] == kept
    assert any(json.loads(about["scores"])["top1"] == best[name] for name in ("top1", "ema_top1"))
    assert json.loads(about["classes"]) == [*"0123456789"]
    assert about["input_size"] == "16"
    head, _, text = card.removeprefix("---\n").partition("\n---\n")
    yaml = pytest.importorskip("yaml")
    read = yaml.safe_load(head)
    assert "license" not in read
    (result,) = read["model-index"][0]["results"]
    assert result["metrics"][0] == {"type": "accuracy", "name": "top1", "value": round(facts.scores["top1"], 4)}
    for said in (facts.command, kept, f"{facts.scores['top1']:.3f}", "1 x cross_entropy", *ALL[1:]):
        assert said in text
    for content in (card, json.dumps(about)):
        assert str(run.parent) not in content  # nor another path of this machine


def test_the_card_is_one_of_the_hubs(exported):
    hub = pytest.importorskip("huggingface_hub")
    data = hub.ModelCard.load(exported[1] / "README.md").data
    assert data.library_name == "pytorch"
    assert data.eval_results[0].metric_name == "top1"


def test_the_python_of_the_card_runs_and_says_what_predict_says(exported, digits, tmp_path, monkeypatch, capsys):
    folder = exported[1]
    blocks = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    assert len(blocks) == 3  # the pixels, ONNX Runtime, PyTorch; no library makes this network
    image = sorted((digits / "images/val").glob("*/*.jpg"))[3]
    monkeypatch.chdir(folder)
    (tmp_path / "image.jpg").write_bytes(image.read_bytes())
    names = {}
    exec(blocks[0].replace("image.jpg", str(tmp_path / "image.jpg")), names)
    said = []
    for block in blocks[1:]:
        exec(block.replace("image.jpg", str(tmp_path / "image.jpg")), names)
        said.append(capsys.readouterr().out)
    assert said[0] == said[1]
    expected = student_of(folder).network.predict(torch.from_numpy(names["pixels"](image))[None]).logits.softmax(1)
    share, number = expected.max(1)
    assert said[0].splitlines()[0] == f"{number.item()} {share.item():.1%}"


def test_a_second_export_writes_the_same_bytes_and_takes_away_what_is_old(exported, export, tmp_path):
    run, folder = exported
    for name in ("model.onnx.refused", "README.md.refused", "model.pt2"):
        (tmp_path / name).write_text("old")
    (tmp_path / "notes.txt").write_text("the user's")
    code, out, _ = export(run, "--output", tmp_path, "--formats", "onnx")
    assert code == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["README.md", "model.onnx", WEIGHTS, "notes.txt"]
    assert str(tmp_path / "model.onnx") in out
    for name in ("model.onnx", WEIGHTS):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()


KILL = """
import os, signal
import tools.export as tool
write = tool.write_weights
def killing(*given):
    write(*given)
    os.kill(os.getpid(), signal.SIGKILL)
tool.write_weights = killing
tool.main()
"""


def test_a_killed_export_leaves_what_was_there_before(exported, export, tmp_path):
    run, _ = exported
    (tmp_path / "model.pt2").write_text("of before")
    call("-c", KILL, str(run), "--output", str(tmp_path), "--formats", "safetensors", code=-signal.SIGKILL)
    assert (tmp_path / "model.pt2").read_text() == "of before"
    assert sorted(path.name for path in tmp_path.iterdir() if not path.name.startswith(".")) == ["model.pt2"]
    assert export(run, "--output", tmp_path, "--formats", "safetensors")[0] == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["README.md", WEIGHTS]


def test_what_differs_is_refused_and_kept_for_a_look(finished, export, tmp_path, monkeypatch):
    def wrong(path):
        program = formats.program_of(path)
        return lambda images: program(images) + 0.1

    monkeypatch.setattr(tool, "program_of", wrong)
    (tmp_path / "README.md").write_text("of an earlier export")
    code, out, err = export(finished, "--output", tmp_path, "--formats", "pt2", "--images", 10)
    assert code == 3
    assert "model.pt2: differs by" in err
    assert [path.name for path in tmp_path.iterdir()] == ["model.pt2.refused"]
    assert "model.pt2" in out


def test_a_student_that_does_not_reach_its_logged_score_is_refused(copy, export):
    rows = [json.loads(line) for line in (copy / "metrics.jsonl").read_text().splitlines()]
    for row in rows:
        for name in ("top1", "ema_top1"):
            if row["kind"] == "val" and name in row:
                row[name] += 10
    (copy / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    code, _, err = export(copy, "--formats", "safetensors")
    assert code == 3
    assert "student: top1" in err
    assert "the run logged" in err
    assert not [*(copy / "export").iterdir()]


def test_wrong_words_and_other_data_are_refused_by_name(finished, digits, export, tmp_path, monkeypatch):
    def refused(*given):
        code, _, err = export(*given, "--output", tmp_path / "never")
        assert code == 2
        assert not (tmp_path / "never").exists()
        return err

    assert "neither a run's folder" in refused(tmp_path)
    assert "data.val_resize: it stays as in the run" in refused(finished, "data.val_resize=20")
    assert "data.data_path" in refused(finished, f"data.data_path={tmp_path}")
    assert "holds other images or labels" in refused(finished, "data.data_path=" + str(_turned(digits, tmp_path)))
    assert "--push me: expected user/name" in refused(finished, "--push", "me")
    assert "--images 0" in refused(finished, "--images", 0)
    monkeypatch.setattr(formats, "find_spec", lambda name: None if name == "onnxscript" else name)
    assert "pip install onnxscript" in refused(finished)


@pytest.mark.parametrize(
    ("name", "spoil"),
    [
        ("facts.json", lambda facts: facts["data"]["train"]["classes"].__setitem__(3, 3)),
        ("facts.json", lambda facts: facts["data"]["train"].update(classes="0123456789")),
        ("facts.json", lambda facts: facts["data"].pop("val")),
        ("facts.json", lambda facts: facts["data"]["val"].update(images=None)),
        ("facts.json", lambda facts: facts["data"]["val"].update(sha256=1)),
        ("facts.json", lambda facts: facts.update(teachers=["teacher"])),
        ("config.json", lambda config: config.update(task_options=1.5)),
        ("config.json", lambda config: config["data"].update(input_size="16")),
        ("config.json", lambda config: config["student"].update(num_classes=[])),
    ],
)
def test_a_run_whose_facts_or_settings_are_of_other_types_is_called_damaged(copy, export, name, spoil):
    values = json.loads((copy / name).read_text())
    spoil(values)
    (copy / name).write_text(json.dumps(values))
    code, _, err = export(copy, "--formats", "safetensors")
    assert code == 3
    assert "damaged" in err


def _turned(digits, folder):
    """The training images as validation images."""
    (folder / "turned").mkdir()
    (folder / "turned/val").symlink_to(digits / "lmdb/train")
    return folder / "turned"


def test_push_uploads_these_files_alone_to_a_private_repository(exported, monkeypatch):
    hub = pytest.importorskip("huggingface_hub")
    asked = []

    class Hub:
        endpoint = "https://hub"

        def create_repo(self, name, **options):
            asked.append((name, options))

        def upload_folder(self, **options):
            asked.append(options)

    monkeypatch.setattr(hub, "HfApi", Hub)
    assert tool.push(exported[1], ALL, "me/student") == "https://hub/me/student"
    (name, options), upload = asked
    assert (name, options["private"]) == ("me/student", True)
    assert (upload["repo_id"], upload["folder_path"], upload["allow_patterns"]) == ("me/student", exported[1], ALL)
