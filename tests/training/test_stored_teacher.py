"""A run learns the same from a store that it fills and one that is full, and nothing else is taken for its outputs."""

import re
import shutil
from dataclasses import fields, is_dataclass, replace

import pytest
import torch
from small_store import CPU, Small, files, recipe

import stored.store
from knowledge_distiller import Term
from models.outputs import Outputs
from stored.facts import facts_of_store
from stored.layouts import LayoutConfig
from stored.store import Store
from teachers import Views
from training import filling
from training.filling import fill
from training.keeping import Keeping
from training.stored import Stored
from utils.distributed import Ranks
from utils.errors import DataError, UsageError

RANKS = Ranks(0, 1, CPU)
LAYOUTS = {
    "prior": LayoutConfig("prior", k=4, views=2),
    "topk": LayoutConfig("topk", k=4),
    "float32": LayoutConfig("all", type="float32"),
    "int8": LayoutConfig("all"),
}


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(stored.store, "BLOCK", 50)


@pytest.fixture
def opened():
    """Makes `Small`s that are closed after the test."""
    made = []

    def make(*args, **more):
        for one in made:
            one.close()  # a process opens a shard once
        made.append(Small(*args, **more))
        return made[-1]

    yield make
    made[-1].close()


def epochs_of(small, epochs=range(3), first=0, stop=None):
    """What a student is given in some epochs by (epoch, sample), as a run goes through them, from a batch on, or up to
    one after which it is stopped."""
    keeping = Keeping({"teacher": small.stored}, small.loader, small.cfg.train_params, RANKS, small.cfg.folder)
    keeping.prepare()
    given = {}
    for epoch in epochs:
        keeping.begin(epoch)
        for number, batch in enumerate(small.loader.epoch(epoch, first), first):
            if number == stop:
                keeping.save(number)
                return given
            outputs = small.stored(Views(batch), "weak", Outputs(batch.index))
            for sample, *values in zip(batch.index.tolist(), outputs.logits, *outputs.features.values()):
                given[epoch, sample] = [value.clone() for value in values]
        keeping.end(100 * epoch)
        first = 0
    return given


def same(first, second):
    return first.keys() == second.keys() and all(
        torch.equal(*both) for key in first for both in zip(first[key], second[key], strict=True)
    )


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_a_run_is_given_the_same_whether_it_fills_the_store_or_reads_it(digits, tmp_path, opened, layout):
    cfg = recipe(digits, tmp_path, layout=layout)
    filling_run = opened(cfg)
    assert filling_run.stored.live is not None
    first = epochs_of(filling_run)
    reading_run = opened(cfg)
    assert reading_run.stored.live is None
    assert same(epochs_of(reading_run), first)
    before = files(tmp_path / "store")
    shutil.rmtree(tmp_path / "store")
    ahead = opened(cfg, ahead=True)
    fill(ahead.stored, ahead.loader, range(3), ahead.precision)
    assert files(tmp_path / "store").keys() == before.keys()
    for key, values in epochs_of(opened(cfg)).items():  # of other batches: the same but for rounding
        assert (values[0].softmax(0) - first[key][0].softmax(0)).abs().max() < 0.02


def test_logits_in_float32_are_those_of_the_teacher(digits, tmp_path, opened):
    small = opened(recipe(digits, tmp_path, layout=LAYOUTS["float32"]))
    epochs_of(small)
    live = small.stored.live
    small = opened(small.cfg)
    small.stored.begin(1, CPU)
    for batch in small.loader.epoch(1):
        views = Views(batch)
        assert torch.equal(small.stored(views, "weak", None).logits, live(views, "weak", None).logits)


def test_pooled_features_are_kept_where_a_term_reads_them(digits, tmp_path, opened):
    terms = {"kd": Term("kd"), "pkt": Term("pkt")}
    small = opened(recipe(digits, tmp_path, terms))
    first = epochs_of(small)
    assert [len(value) for value in next(iter(first.values()))] == [10, 64]
    live = small.stored.live
    again = opened(small.cfg)
    assert same(epochs_of(again), first)
    again.stored.begin(0, CPU)
    batch = next(again.loader.epoch(0))
    given = again.stored(Views(batch), "weak", None).features["pooled"]
    torch.testing.assert_close(given, live(Views(batch), "weak", None).features["pooled"], rtol=1e-3, atol=1e-4)


def test_a_run_that_was_stopped_fills_the_same_bytes(digits, tmp_path, opened):
    cfg = recipe(digits, tmp_path)
    whole = epochs_of(opened(cfg))
    expected = files(tmp_path / "store")
    shutil.rmtree(tmp_path / "store")
    parts = epochs_of(opened(cfg), epochs=[2], stop=4)
    assert list((tmp_path / "store").glob("weak/0002/*.part"))
    rest = epochs_of(opened(cfg), epochs=[2], first=4)
    assert same({**parts, **rest}, {key: values for key, values in whole.items() if key[0] == 2})
    assert files(tmp_path / "store") == expected


def test_after_an_epoch_the_teacher_looks_at_the_samples_that_sat_it_out_alone(digits, tmp_path, opened, monkeypatch):
    cfg = recipe(digits, tmp_path, layout=LAYOUTS["topk"], batch_size=50)
    look, looked = Stored.look, []

    def looking(self, loader, epoch, samples, precision):
        looked.append((epoch, len(samples)))
        return look(self, loader, epoch, samples, precision)

    monkeypatch.setattr(Stored, "look", looking)
    given = epochs_of(opened(cfg), range(2))
    assert looked == [(0, 20), (1, 20)]
    epochs_of(opened(cfg), [2], stop=1)
    epochs_of(opened(cfg), [2], first=1)
    assert looked[-1] == (2, 20)
    assert len(given) == 200


def test_a_filler_that_was_killed_anywhere_ends_with_the_same_bytes(digits, tmp_path, opened, monkeypatch):
    cfg = recipe(digits, tmp_path)
    small = opened(cfg, ahead=True)
    fill(small.stored, small.loader, range(4), small.precision)
    expected = files(tmp_path / "store")
    shutil.rmtree(tmp_path / "store")
    write, written = stored.store.Store.write, []

    def killed(self, *args):
        written.append(args)
        if len(written) % 4 == 3:
            raise KeyboardInterrupt
        write(self, *args)

    monkeypatch.setattr(stored.store.Store, "write", killed)
    for _ in range(20):
        small = opened(cfg, ahead=True)
        try:
            fill(small.stored, small.loader, [3, 0, 1, 2], small.precision)
        except KeyboardInterrupt:
            continue
        break
    assert len(written) > 15
    assert files(tmp_path / "store") == expected


def test_parts_of_any_number_of_machines_make_the_same_store(digits, tmp_path, opened):
    cfg = recipe(digits, tmp_path)
    small = opened(cfg, ahead=True)
    for epochs, part in ((range(2), (2, 3)), (range(3), (0, 3)), (range(3), (1, 3)), ([2], (2, 3))):
        fill(small.stored, small.loader, epochs, small.precision, part)
    in_parts = files(tmp_path / "store")
    shutil.rmtree(tmp_path / "store")
    small = opened(cfg, ahead=True)
    fill(small.stored, small.loader, range(3), small.precision)
    assert files(tmp_path / "store") == in_parts


def test_views_come_again_and_a_store_of_them_serves_any_number_of_epochs(digits, tmp_path, opened):
    small = opened(recipe(digits, tmp_path, epochs_of_views=2))
    given = epochs_of(small, range(4))
    assert not (tmp_path / "store/weak/0002").exists()
    for (epoch, sample), values in given.items():
        if epoch >= 2 and (epoch - 2, sample) in given:
            assert torch.equal(values[0], given[epoch - 2, sample][0])
    orders = [[sample for one, sample in given if one == epoch] for epoch in (0, 2)]
    assert orders[0] != orders[1]


def test_strong_views_are_kept_beside_weak_ones(digits, tmp_path, opened):
    terms = {"kd": Term("kd"), "strong": Term("kd", view="strong")}
    cfg = recipe(digits, tmp_path, terms, LAYOUTS["float32"], strong_view=True)
    small = opened(cfg, ahead=True)
    fill(small.stored, small.loader, range(2), small.precision)
    live = small.stored.live
    small = opened(replace(cfg, phases={"only": replace(cfg.last, epochs=2)}))
    assert small.stored.live is None
    small.stored.begin(1, CPU)
    for batch in small.loader.epoch(1):
        for view in ("weak", "strong"):
            given, expected = (one(Views(batch), view, None).logits for one in (small.stored, live))
            torch.testing.assert_close(given, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mixed", ["own", "linear"])
def test_mixed_images_have_their_own_outputs_or_those_of_both(digits, tmp_path, opened, mixed):
    cfg = recipe(digits, tmp_path, layout=LAYOUTS["float32"], teacher={"mixed": mixed}, mixup=0.4, cutmix=0.4)
    if mixed == "linear":
        with pytest.raises(UsageError, match=r"fill .*store first, with python -m tools\.teacher_outputs"):
            opened(cfg)
        plain = replace(cfg, data=replace(cfg.data, mixup=0.0, cutmix=0.0))
        small = opened(plain, ahead=True)
        fill(small.stored, small.loader, range(3), small.precision)
        alone = epochs_of(opened(plain))
        small = opened(cfg)
        keeping = Keeping({"teacher": small.stored}, small.loader, cfg.train_params, RANKS, cfg.folder)
        keeping.begin(1)
        for batch in small.loader.epoch(1):
            given = small.stored(Views(batch), "weak", None).logits.softmax(1)
            pairs = zip(batch.index.tolist(), batch.targets["other_index"].tolist(), batch.targets["other_share"])
            for row, (one, other, share) in zip(given, pairs):
                expected = torch.lerp(alone[1, one][0].softmax(0), alone[1, other][0].softmax(0), share)
                torch.testing.assert_close(row, expected, rtol=1e-4, atol=1e-6)
    else:
        first = epochs_of(opened(cfg))
        by_run = files(tmp_path / "store")
        shutil.rmtree(tmp_path / "store")
        small = opened(cfg, ahead=True)
        fill(small.stored, small.loader, range(3), small.precision)
        assert files(tmp_path / "store").keys() == by_run.keys()
        again = epochs_of(opened(cfg))
        for key, values in first.items():
            torch.testing.assert_close(values[0], again[key][0], rtol=1e-4, atol=1e-5)


def test_logits_that_are_not_finite_are_not_stored(digits, tmp_path, opened):
    small = opened(recipe(digits, tmp_path))
    small.stored.live.network.network.fc.bias.data[3] = torch.nan
    with pytest.raises(DataError, match="not finite, and none of them are stored"):
        epochs_of(small)
    assert not list((tmp_path / "store").rglob("*.block"))


def test_what_is_stored_is_compared_with_the_teacher(digits, tmp_path, opened):
    cfg = recipe(digits, tmp_path)
    small = opened(cfg, ahead=True)
    fill(small.stored, small.loader, range(2), small.precision)
    small.stored.begin(1, CPU)
    assert filling.compare(small.stored, small.loader, 1, small.precision).changed < 1e-6
    with pytest.raises(DataError, match="stored outputs of epoch 1 differ from the teacher's"):
        filling.compare(small.stored, small.loader, 0, small.precision)
    for lost in filling.losses(small.stored, small.loader, 1, small.precision, [1.0, 4.0]).values():
        assert 0 <= lost < 0.1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"terms": {"at": Term("at")}}, "terms.at: at reads .*, and a store keeps logits and pooled"),
        (
            {"terms": {"fcfd": Term("fcfd")}},
            r"terms.fcfd: fcfd reads last, rest, stage\*, and a store keeps logits and",
        ),
        ({"teacher": {"batch_statistics": True}}, "with batch_statistics outputs depend on the batch"),
    ],
)
def test_what_cannot_be_stored_is_refused(digits, tmp_path, opened, change, said):
    with pytest.raises(UsageError, match=said):
        opened(recipe(digits, tmp_path, **change))
    opened(recipe(digits, tmp_path))


def test_more_classes_than_there_are_is_said(digits, tmp_path, opened, capsys):
    opened(recipe(digits, tmp_path, layout=LayoutConfig("topk", k=20)))
    assert "teachers.teacher.layout.k=20: all 10 classes are kept, there are no more" in capsys.readouterr().out
    with pytest.raises(UsageError, match=r"layout\.detections=5: it is for detectors"):
        opened(recipe(digits, tmp_path, layout=LayoutConfig("topk", detections=5)))
    opened(recipe(digits, tmp_path, layout=LayoutConfig("topk", k=20)))


def leaves(value, start=""):
    """Every value in dataclasses in each other, by dotted name."""
    for field in fields(value):
        one = getattr(value, field.name)
        if is_dataclass(one):
            yield from leaves(one, f"{start}{field.name}.")
        else:
            yield f"{start}{field.name}", one


def changed(config, name, value):
    first, _, rest = name.partition(".")
    return replace(config, **{first: changed(getattr(config, first), rest, value) if rest else value})


def another(value):
    if isinstance(value, bool) or value is None:
        return 0.25 if value is None else not value
    if isinstance(value, (int, float)):
        return value + 1
    if isinstance(value, str):
        return f"{value}x"
    if isinstance(value, (tuple, list)):
        return (*value[:-1], another(value[-1])) if value else ("x",)
    return {"x": "y"}


def test_fifty_facts_each_refuse_another_store(digits, tmp_path, opened):
    cfg = recipe(digits, tmp_path, mixup=0.2)
    small = opened(cfg)
    config = cfg.teachers["teacher"]
    given = {"seed": 0, "amp": "off", "reads": ("logits",)}

    def facts(data=cfg.data, teacher=config, **more):
        named = {**given, **more}
        return facts_of_store(
            data, small.train, named["seed"], named["amp"], teacher, named["reads"], "teachers.teacher", mixed=True
        )

    kept = facts()
    refused = []
    tried = [*(("data", name, value) for name, value in leaves(cfg.data))]
    tried += [("teacher", name, value) for name, value in leaves(config)]
    free = {"data_path", "batch_size", "num_workers", "train_data_type", "val_data_type", "train_split", "val_split"}
    free |= {"epochs_of_views", "cache_path", "cache_gb", "on_fault", "worker_timeout", "val_crop", "val_resize"}
    free |= {"val_batch_size", "strong_view", "store", "mixed", "on_damage", "expect", "weights", "layout.detections"}
    free |= {"options", "folder"}  # of networks of one's own
    for part, name, value in tried:
        other = changed(cfg.data if part == "data" else config, name, another(value))
        if name == "repeats":  # no store is of several views of an image
            with pytest.raises(UsageError, match="a store keeps one view of each"):
                facts(data=other)
            continue
        if name not in free:
            assert facts(**{part: other}) != kept, name
            refused.append(name)
        elif name != "weights":
            assert facts(**{part: other}) == kept, name
    for more in ({"seed": 1}, {"amp": "bf16"}, {"reads": ("logits", "pooled")}):
        assert facts(**more) != kept
        refused += more
    torch.save({"x": torch.zeros(1)}, tmp_path / "other.pth")
    assert facts(teacher=replace(config, weights=str(tmp_path / "other.pth"))) != kept
    assert len(refused) > 45
    assert len(kept) >= 50
    for name, value in kept.items():
        with pytest.raises(UsageError, match=rf"holds other outputs: {re.escape(name)} "):
            Store(tmp_path / "store", {**kept, name: another(value) if value != {} else 1}, len(small.train))
    with pytest.raises(UsageError, match=r"data\.flip false there, true here"):
        opened(replace(cfg, data=replace(cfg.data, flip=True)))
