"""What may change when a run is resumed, and runs of older versions."""

import dataclasses
import json
from typing import get_args, get_origin

import pytest
from test_settings import ROOT, of_two_phases

from imagenet_train_cfg import cfg
from old_names import as_today
from recipe import Recipe
from utils.config import override, read_config, restore, restore_file
from utils.errors import UsageError
from utils.settings import hints, settings


def begun(*words):
    return json.loads(json.dumps(dataclasses.asdict(override(cfg, words))))


def changed(one):
    """Another value of a setting."""
    if isinstance(one.value, tuple):
        return [number + 1 for number in one.value] or [1]
    if isinstance(one.value, bool) or one.value is None:
        return not one.value
    return one.value + ("x" if isinstance(one.value, str) else 1)


def test_a_run_resumes_with_other_settings_where_they_do_not_decide_what_is_learned():
    for one in settings(cfg):
        old = part = begun()
        own = {field.name for field in dataclasses.fields(Recipe)}
        key = one.key if one.key.partition(".")[0] in own else f"phases.distillation.{one.key}"
        *path, last = key.split(".")
        for name in path:
            part = part[name]
        part[last] = changed(one)
        if one.affects_result:
            with pytest.raises(UsageError, match=rf"holds a run with other settings: {one.key} "):
                list(cfg.resume_remarks(old))
        else:
            (remark,) = cfg.resume_remarks(old)
            assert f"resumes with other settings: {one.key} " in remark
    free = {one.key for one in settings(cfg) if not one.affects_result}
    # What messages advise, the machine's affairs, and what changes rounding alone.
    assert free >= {"data.on_fault", "data.cache_gb", "data.num_workers", "train_params.accumulate", "train_params.amp"}
    assert not free & {"data.batch_size", "optim.init_lr", "train_params.seed", "epochs", "trainable"}


def test_a_store_that_is_new_to_a_run_changes_what_it_learns_and_another_folder_does_not():
    (remark,) = override(cfg, ["teachers.teacher.store=there"]).resume_remarks(begun())
    assert remark.endswith("From here on it learns from what the store's layout keeps of teacher")
    (remark,) = override(cfg, ["teachers.teacher.store=there"]).resume_remarks(begun("teachers.teacher.store=here"))
    assert "keeps of" not in remark


def test_a_run_from_before_a_setting_existed_resumes_and_one_with_an_old_setting_prints_it():
    old = begun()
    last = old["phases"]["distillation"]
    del last["optim"]["betas"], last["trainable"], old["data"]["on_fault"], old["train_params"]["accumulate"]
    assert list(cfg.resume_remarks(old)) == []
    last["optim"]["of_old"] = 3
    assert list(cfg.resume_remarks(old)) == [
        "settings of another version are ignored: phases.distillation.optim.of_old"
    ]
    with pytest.raises(UsageError, match=r"optim\.betas \[0\.9, 0\.999\] -> \[0\.8, 0\.999\]"):
        list(override(cfg, ["optim.betas=0.8,0.999"]).resume_remarks(old))


def test_a_setting_added_later_never_makes_a_run_unresumable():
    """Each that has a default may be missing; the law holds at every depth, in every phase."""
    config = of_two_phases()
    written = json.loads(json.dumps(dataclasses.asdict(config)))

    def missing(kind, values):
        for field in dataclasses.fields(kind):
            of = hints(kind)[field.name]
            inner = get_args(of)[1] if get_origin(of) is dict else of
            if dataclasses.is_dataclass(inner):
                parts = values[field.name].values() if get_origin(of) is dict else [values[field.name]]
                for part in parts:
                    yield from missing(inner, part)
            elif values[field.name] == json.loads(json.dumps(field.default, default=repr)):
                yield values, field.name

    without = list(missing(Recipe, written))
    assert len(without) > 70
    for values, name in without:
        value = values.pop(name)
        assert list(config.resume_remarks(written)) == [], name
        values[name] = value


def as_before(config):
    """The JSON of a run of a version without phases."""
    values = json.loads(json.dumps(dataclasses.asdict(config)))
    phases = values.pop("phases")
    for phase in phases.values():
        phase["optim"]["moves"] = phase.pop("trainable")
        del phase["freeze_norms"]  # younger than phases
    _, last = phases.popitem()
    values["train_params"]["epochs"] = last.pop("epochs")
    return {**values, **last, "first": phases}


@pytest.mark.parametrize(
    ("typed", "draws"), [("method=ft", 0), ("method=kd", 0), ("method=none", 0), ("method=mlkd", 1)]
)
def test_a_run_of_a_version_without_phases_resumes(typed, draws, tmp_path):
    config, _ = read_config(ROOT / "configs/cifar100.py", Recipe, [typed])
    old = as_before(config)
    assert [remark.startswith("an older version") for remark in config.resume_remarks(old)] == [True] * draws
    assert restore(Recipe, as_today(old, [*config.phases][-1])) == (config, [])
    longer = override(config, ["epochs=500"])
    assert next(longer.resume_remarks(old)).startswith("resumes with other settings: epochs ")
    with pytest.raises(UsageError, match=r"holds a run with other settings: optim\.init_lr .* -> 3\.0"):
        list(override(config, ["optim.init_lr=3"]).resume_remarks(old))
    (tmp_path / "config.json").write_text(json.dumps(old))
    restored, unknown = restore_file(tmp_path / "config.json", Recipe, as_today)
    assert (restored.last, unknown) == (config.last, [])


def test_a_run_may_be_lengthened_where_its_past_stays_the_same(monkeypatch):
    longer = override(cfg, ["epochs=120"])
    assert "epochs 100 -> 120" in next(longer.resume_remarks(begun()))
    with pytest.raises(UsageError, match=r"settings: optim\.milestones \[30, 60, 90\] -> \[30, 60\]\. Set another"):
        list(override(longer, ["optim.milestones=30,60"]).resume_remarks(begun()))
    with pytest.raises(UsageError, match=r"epochs 100 -> 90\. Set another"):
        list(override(cfg, ["epochs=90"]).resume_remarks(begun()))
    with pytest.raises(UsageError, match=r"cosine .*weights=runs/resnet18_wsld/student\.safetensors and another"):
        list(override(longer, ["optim.schedule=cosine"]).resume_remarks(begun("optim.schedule=cosine")))


def test_a_run_of_a_version_with_other_draws_says_so():
    mixed = override(cfg, ["data.mixup=0.4"])
    assert list(mixed.resume_remarks(begun("data.mixup=0.4"))) == []
    (remark,) = mixed.resume_remarks(as_before(mixed))
    assert "mixup, cutmix and strong views are drawn for each sample from here on" in remark
