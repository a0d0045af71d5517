"""The stored teachers of runs: what a config says of them, opened."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from dataset.store.samples import Samples
from recipe import Recipe
from stored.facts import facts_of_store
from stored.layouts import Layout, LayoutConfig, layout_of
from stored.store import PRIOR, Shape, Store
from teachers import Live
from terms import features_of
from training.stored import Stored
from utils.errors import UsageError
from utils.files import expanded

_KEPT = frozenset(("logits", "pooled"))


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
    config, task = cfg.teachers[name], cfg.made_task()
    reads, views = _read_of(cfgs, name)
    competing, linear = task.logits == "softmax", config.mixed == "linear" and bool(cfg.data.mixup or cfg.data.cutmix)
    if not config.store.strip():
        raise UsageError(f"{key}.store={config.store!r}: expected a folder, or nothing")
    path = expanded(config.store, f"{key}.store")
    facts = facts_of_store(
        cfg.data, train, cfg.train_params.seed, cfg.train_params.amp, config, reads, key, mixed=not linear
    )
    store = Store(path, facts, len(train), f"{key}.store", recompute=config.on_damage == "recompute")
    layout = layout_of(_of_logits(config.layout, len(train.classes), competing=competing), competing)
    pooled = layout_of(_of_features(config.layout), competing=False)
    shown = _shown(cfgs)
    wanted = [*shown, *([PRIOR] if layout.needs_prior else [])]
    built = None
    if ahead or store.shape is None or not all(store.is_whole(view, epoch) for view in views for epoch in wanted):
        if linear and not ahead:
            raise UsageError(
                f"{key}.mixed=linear mixes what is stored without mixing: fill {path} first, with "
                "python -m tools.teacher_outputs and these settings"
            )
        built = live()
        store.begin(_shape_of(built, layout, pooled if "pooled" in reads else None, cfg.data.input_size))
    shape = store.shape
    assert shape is not None
    return Stored(
        store,
        layout,
        (pooled, shape.channels) if shape.channels else None,
        views,
        shape.classes,
        built,
        None if shape.places is None else torch.tensor(shape.places),
        shown,
        config.layout.views,
        competing=competing,
        linear=linear,
    )


def _shown(cfgs: Sequence[Recipe]) -> range:
    """The epochs whose views runs of the same data show."""
    epochs, again = max(cfg.epochs for cfg in cfgs), cfgs[0].data.epochs_of_views
    return range(min(again, epochs) if again else epochs)


def _read_of(cfgs: Sequence[Recipe], name: str) -> tuple[set[str], list[str]]:
    """What terms read of a teacher, and for which views."""
    key, reads, views = f"teachers.{name}", {"logits"}, set[str]()
    for cfg in cfgs:
        for place, term in cfg.all_terms.items():
            if name not in term.teachers_read:
                continue
            asked = features_of([term])[1][name]
            if lacking := sorted(asked - _KEPT):
                raise UsageError(
                    f"{key}.store: terms.{place}: {term.objective} reads {', '.join(lacking)}, and a store keeps "
                    f"{' and '.join(sorted(_KEPT))}: leave {key}.store out, or that term"
                )
            reads |= asked
            views |= term.views
        if name in cfg.student.head.made().takes:
            raise UsageError(f"{key}.store: the student has its classifier, which is not stored: leave the store out")
        if name in cfg.teachers and cfg.teachers[name].batch_statistics:
            raise UsageError(f"{key}.store: with batch_statistics outputs depend on the batch, and are no view's own")
        if cfg.made_task().detects:
            raise UsageError(f"{key}.store: what a detector gives is not stored: leave the store out")
    return reads, sorted(views, reverse=True)


def _of_logits(config: LayoutConfig, classes: int, *, competing: bool) -> LayoutConfig:
    """``config`` with a layout where it names none: of few classes every one takes no more bytes than the likeliest."""
    return replace(config, name=config.name or ("prior" if competing and classes > 2 * config.k else "all"))


def _of_features(config: LayoutConfig) -> LayoutConfig:
    return LayoutConfig("all", type=config.pooled)


def _shape_of(live: Live, layout: Layout, pooled: Layout | None, side: int) -> Shape:
    example = live.predict(torch.zeros(2, 3, side, side, dtype=torch.uint8))
    classes, channels = example.logits.shape[1], example.features["pooled"].shape[1] if pooled else 0
    places = None if live.places is None else live.places.tolist()
    record = layout.size(classes) + (pooled.size(channels) if pooled else 0)
    return Shape(classes, channels, places, record, classes if layout.needs_prior else 0)
