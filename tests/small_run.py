"""A short run of train_with_distillation.py, ways to end it, and what it has learned."""

from figures.curves import read_metrics

SPEED = ("images_per_second", "data_wait", "seconds", "time")  # never twice the same
# Kills the process when training step N has been taken in, or inside the Nth file that is about to be named.
KILL_AT_STEP = """
import os, signal
from training.meters import Meters
add = Meters.add
def killing(self, given, batch, step):
    add(self, given, batch, step)
    if step == {step}:
        os.kill(os.getpid(), signal.{signal})
Meters.add = killing
"""
KILL_BEFORE_RENAME = """
import os, signal, pathlib
replace, calls = pathlib.Path.replace, []
def killing(self, target):
    calls.append(target)
    if str(target).endswith("last.pt") and sum(str(c).endswith("last.pt") for c in calls) == {number}:
        os.kill(os.getpid(), signal.SIGKILL)
    return replace(self, target)
pathlib.Path.replace = killing
"""


def words(digits, runs, *more):
    """The demo's distillation, shortened: 3 epochs of 6 steps, a checkpoint every 4 steps, an EMA, a ramp, clipping."""
    return [
        "--cfg",
        "configs/digits.py",
        f"data.data_path={digits / 'lmdb'}",
        f"train_params.output_path={runs}",
        "data.batch_size=20",
        "data.num_workers=0",
        "epochs=3",
        "train_params.print_freq=3",
        "train_params.checkpoint_steps=4",
        "train_params.ema_decay=0.9",
        "data.color_jitter=0.4",
        "optim.grad_clip=2",
        "name=run",
        *more,
    ]


def learned(run):
    """The student's bytes and every logged number that is not a speed."""
    rows = [{k: v for k, v in row.items() if k.partition("/")[0] not in SPEED} for row in read_metrics(run)]
    return (run / "student.safetensors").read_bytes(), rows
