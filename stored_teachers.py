"""The stored teachers of runs: what a config says of them, opened."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from dataset.store.samples import Samples
from models.outputs import FOUND
from recipe import Recipe
from stored.boxes import BoxLayout
from stored.facts import facts_of_store
from stored.layouts import All, Likeliest, layout_of
from stored.records import BoxesRecord, LogitsRecord, Record
from stored.store import PRIOR, Shape, Store
from tasks import Task
from teachers import Live, TeacherConfig
from terms import features_of
from training.stored import Stored
from utils.distributed import print_on_first
from utils.errors import UsageError
from utils.files import expanded

_KEPT = frozenset(("logits", "pooled"))  # of classifiers
_RecordOf = Callable[[int, int], Record]  # of classes and channels


def stored_teacher(
    cfgs: Sequence[Recipe], name: str, train: Samples, live: Callable[[], Live], *, ahead: bool = False
) -> Stored:
    """The teacher called ``name`` with its store; the teacher itself only where the store lacks some of the run.

    Args:
        cfgs: the runs that share it, alike in its settings and their data.
        name: of a teacher with a store.
        train: the split.
        live: builds the teacher.
        ahead: whether it is filled before training, or compared: the teacher is there in any case.

    Raises:
        UsageError: a term reads what is not kept, or the store is of other outputs, which are named.
        DataError: its manifest is damaged.
    """
    cfg, key = next(cfg for cfg in cfgs if name in cfg.teachers), f"teachers.{name}"
    config, reads, views = cfg.teachers[name], *_read_of(cfgs, name)
    linear = config.mixed == "linear" and bool(cfg.data.mixup or cfg.data.cutmix)
    if not config.store.strip():
        raise UsageError(f"{key}.store={config.store!r}: expected a folder, or nothing")
    path = expanded(config.store, f"{key}.store")
    record_of = _record_of(config, cfg.made_task(), len(train.classes), key)
    facts = facts_of_store(
        cfg.data, train, cfg.train_params.seed, cfg.train_params.amp, config, reads, key, mixed=not linear
    )
    store = Store(path, facts, len(train), f"{key}.store", recompute=config.on_damage == "recompute")
    shown = _shown(cfgs)
    wanted = [*shown, *([PRIOR] if record_of(len(train.classes), 0).needs_prior else [])]
    built = None
    if ahead or store.shape is None or not all(store.is_whole(view, epoch) for view in views for epoch in wanted):
        if linear and not ahead:
            raise UsageError(
                f"{key}.mixed=linear mixes what is stored without mixing: fill {path} first, with "
                "python -m tools.teacher_outputs and these settings"
            )
        built = live()
        store.begin(_shape_of(built, record_of, reads, len(train.classes), cfg.data.input_size))
    shape = store.shape
    assert shape is not None
    record = record_of(shape.classes, shape.channels)
    if isinstance(record, LogitsRecord) and isinstance(record.layout, Likeliest) and record.layout.k > shape.classes:
        print_on_first(f"{key}.layout.k={record.layout.k}: all {shape.classes} classes are kept, there are no more")
    return Stored(
        store,
        record,
        views,
        shape.classes,
        built,
        None if shape.places is None else torch.tensor(shape.places),
        shown,
        config.layout.views,
        linear=linear,
    )


def _shown(cfgs: Sequence[Recipe]) -> range:
    """The epochs whose views runs of the same data show."""
    epochs, again = max(cfg.epochs for cfg in cfgs), cfgs[0].data.epochs_of_views
    return range(min(again, epochs) if again else epochs)


def _read_of(cfgs: Sequence[Recipe], name: str) -> tuple[set[str], list[str]]:
    """What terms read of a teacher, and for which views."""
    detects = any(cfg.made_task().detects for cfg in cfgs)
    key, reads, views = f"teachers.{name}", {*FOUND} if detects else {"logits"}, set[str]()
    kept, of = (frozenset(FOUND), " of a detector") if detects else (_KEPT, "")
    for cfg in cfgs:
        for place, term in cfg.all_terms.items():
            if name not in term.teachers_read:
                continue
            asked = features_of([term])[1][name]
            if lacking := sorted(asked - kept):
                raise UsageError(
                    f"{key}.store: terms.{place}: {term.objective} reads {', '.join(lacking)}, and a store keeps "
                    f"{' and '.join(sorted(kept))}{of}: leave {key}.store out, or that term"
                )
            reads |= asked
            views |= term.views
        if name in cfg.student.head.made().takes:
            raise UsageError(f"{key}.store: the student has its classifier, which is not stored: leave the store out")
        if name in cfg.teachers and cfg.teachers[name].batch_statistics:
            raise UsageError(f"{key}.store: with batch_statistics outputs depend on the batch, and are no view's own")
    return reads, sorted(views, reverse=True)


def _record_of(config: TeacherConfig, task: Task, classes: int, key: str) -> _RecordOf:
    """The record of a teacher, for as many classes and channels as it turns out to have.

    Raises:
        UsageError: a setting of the layout is not for such a teacher.
    """
    layout = config.layout
    if not task.detects:
        if layout.detections is not None:
            raise UsageError(f"{key}.layout.detections={layout.detections}: it is for detectors: leave it out")
        competing = task.logits == "softmax"
        logits = layout_of(layout, classes, competing=competing)
        pooled = All(layout.pooled, competing=False)
        return lambda own, channels: LogitsRecord(logits, own, (pooled, channels) if channels else None, competing)
    if layout.name:
        raise UsageError(f"{key}.layout.name={layout.name} keeps logits, and of a detector boxes are: leave it out")
    found, most = config.detector.detections, layout.detections
    if most is not None and most > found:
        raise UsageError(f"{key}.layout.detections={most}: it gives {key}.detector.detections={found} at most")
    return lambda own, _: BoxesRecord(BoxLayout(most or found, own))


def _shape_of(live: Live, record_of: _RecordOf, reads: set[str], classes: int, side: int) -> Shape:
    """What records of a teacher hold, of data with so many ``classes``."""
    channels = 0
    if "logits" in reads:
        example = live.predict(torch.zeros(2, 3, side, side, dtype=torch.uint8))
        classes = example.logits.shape[1]
        channels = example.features["pooled"].shape[1] if "pooled" in reads else 0
    places = None if live.places is None else live.places.tolist()
    record = record_of(classes, channels)
    return Shape(classes, channels, places, record.size, classes if record.needs_prior else 0)
