"""Multi-label squares, and configs of L2D and CPSD on them, small enough for a test."""

from dataset_helpers import image_bytes
from splits import write_split

from dataset.store.record import Record

CLASSES = ("a", "b", "c", "d")
CONFIG = """
from dataclasses import replace

from configs import _cpsd, _l2d, _multi_label
from models.heads import HeadConfig
from training.phases import Phase

_multi_label.NETWORKS["tiny"] = "cifar_resnet8"
_cpsd.MODELS["tiny"] = "tiny", HeadConfig()
HEAD = HeadConfig("label_embeddings", {"dimensions": 8, "heads": 2, "width": 16})


def small(recipe, head=None):
    data = replace(recipe.data, batch_size=8, num_workers=0, input_size=32, val_batch_size=8)
    student = replace(recipe.student, head=head) if head else recipe.student
    teachers = {name: replace(one, head=student.head, expect=0.0) for name, one in recipe.teachers.items()}
    phases = {name: replace(one, epochs=2) for name, one in recipe.phases.items()}
    params = replace(recipe.train_params, amp="off", checkpoint_steps=2, print_freq=2)
    return replace(recipe, data=data, student=student, teachers=teachers, phases=phases, train_params=params)


def cfg(method: str = "l2d", cgp: str = "", dgp: str = "", manifest: str = ""):
    if method == "l2d":
        runs = _l2d.l2d("voc", "tiny", "tiny", "pkt", "led", "mld", "none")
        return {name: small(one, HEAD) for name, one in runs.items()}
    runs = _cpsd.cpsd("coco", "tiny", "448", cgp, dgp, "mse", "0.5", manifest, "", "none", None)
    return {name: small(one) for name, one in runs.items()}
"""


def write_data(folder, turned=False):
    """lmdb/train of 32 images, lmdb/val of 12 (for two ranks odd batches), and the config small.py.

    Targets may be ``turned``, those of the images in reverse order.
    """
    folder.mkdir(exist_ok=True)
    for split, count in (("train", 32), ("val", 12)):
        targets = [(0,), (0, 1), (1, 2, -4), (2, 3), (), (0, 3), (3,), (1, 3)]
        targets = targets[::-1] if turned else targets
        images = [
            Record(f"{split}/{n}.jpg", image_bytes(n + 100 * len(split), 40, 36), targets[n % 8]) for n in range(count)
        ]
        write_split(folder / "lmdb" / split, images, target="multi", classes=CLASSES, size=(40, 36))
    (folder / "small.py").write_text(CONFIG)
    return folder


def words(folder, runs, *more):
    """A command line for the entry script."""
    paths = [f"data.data_path={folder / 'lmdb'}", f"train_params.output_path={runs}"]
    return ["--cfg", str(folder / "small.py"), *paths, *more]
