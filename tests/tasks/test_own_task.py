"""A task of one's own: one file, which a config imports, and nothing else knows of it."""

from conftest import ROOT
from dataset_helpers import image_bytes
from splits import write_split

from dataset.store.record import Record
from figures.curves import read_metrics

TASK = """
import numpy as np
from torch.nn import functional as F

from objectives import objective
from tasks import Metrics, Task, task


class Present:
    def __init__(self, classes):
        self.classes = classes

    def layout(self, rows):
        return {"present": (np.float32, (rows, self.classes))}

    def put(self, target, window, mirror, out, row):
        out["present"][row] = 0
        out["present"][row, list(target)] = 1


class ExactMatch(Metrics):
    def __init__(self):
        self.right = self.images = 0

    def add(self, outputs, batch):
        same = (outputs.logits > 0) == (batch.targets["present"] > 0)
        self.right, self.images = self.right + int(same.all(1).sum()), self.images + len(batch.index)

    def compute(self):
        return {"match": 100 * self.right / self.images, "images": self.images}


@task("toy_multi_label")
class ToyMultiLabel(Task):
    primary, hard_loss, running_scores, logits = "match", "toy_bce", ("per_class",), "sigmoid"

    def targets(self, classes):
        return Present(len(classes))

    def metrics(self, device, classes):
        return ExactMatch()

    def running(self, outputs, batch):
        return {"per_class": ((outputs.logits > 0) == (batch.targets["present"] > 0)).float().mean(1).sum()}

    def chance(self, labels):
        return 100 * 0.5 ** labels.shape[1]


@objective(reads="logits", logits="sigmoid")
def toy_bce(student, present):
    return F.binary_cross_entropy_with_logits(student, present)
"""
CONFIG = """
from dataclasses import replace

import own_task
from configs.digits import cfg as digits
from knowledge_distiller import Term
from training.phases import Phase

base = digits("student")
phases = {"training": Phase(2, {"hard": Term("toy_bce")}, base.last.optim)}
cfg = replace(base, task="toy_multi_label", name="run", phases=phases)
"""


def squares(count, seed):
    """Images with labels 0, 1, both or none."""
    present = [(), (0,), (1,), (0, 1)]
    images = [image_bytes(1000 * seed + number, 16, 16) for number in range(count)]
    return [Record(f"{seed}/{number}", image, present[number % 4]) for number, image in enumerate(images)]


def test_a_task_in_a_config_trains_evaluates_and_resumes(run, tmp_path):
    for split, count in (("train", 40), ("val", 12)):
        images = squares(count, len(split))
        write_split(tmp_path / "lmdb" / split, images, target="multi", classes=("a", "b"), size=(16, 16))
    (tmp_path / "own_task.py").write_text(TASK)
    (tmp_path / "own.py").write_text(CONFIG)
    words = ["--cfg", str(tmp_path / "own.py"), f"data.data_path={tmp_path / 'lmdb'}", "data.batch_size=10"]
    words += [f"train_params.output_path={tmp_path}", "train_params.print_freq=2"]
    code, out, err = run(*words)
    assert code == 0, err
    rows = read_metrics(tmp_path / "run")
    train, val = ([row for row in rows if row["kind"] == kind] for kind in ("train", "val"))
    assert {"loss", "hard", "per_class"} <= train[0].keys()
    assert 0 <= train[0]["per_class"] <= 100
    assert [set(row) & {"match", "top1", "images"} for row in val] == [{"match", "images"}] * 2
    assert "best after epoch" in out
    assert "match" in out
    assert (tmp_path / "run/curves.png").exists()
    code, out, err = run(*words)
    assert (code, "ended after step 8" in out) == (0, True), err


def test_a_task_that_is_none_is_refused(run, digits, tmp_path):
    words = ["--cfg", "configs/digits.py", f"data.data_path={digits / 'lmdb'}", f"train_params.output_path={tmp_path}"]
    code, _, err = run(*words, "task=single_lable")
    assert code == 2
    assert "task=single_lable: there is single_label" in err
    assert ROOT.exists()
