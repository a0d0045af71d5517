"""Run under torchrun by test_detection_runs.py: what two ranks compute together, for comparison with one process."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from small_detection import Term, recipe

from dataset.loader import EvalLoader, TrainLoader
from networks import build_distiller, open_splits
from training.loop import Trainer
from training.scores import Scorer
from training.state import State
from training.step import step_on
from utils.distributed import ranks

TERMS = {  # by student and teacher
    ("fasterrcnn", "fasterrcnn"): {"kd": Term("kd"), "lshfm": Term("lshfm", options={"hashes": 8})},
    ("retinanet", "retinanet"): {"towers": Term("lshfm_windows", options={"hashes": 8})},
    ("fcos", "fcos"): {"kd": Term("crosskd")},
    ("fcos", "fasterrcnn"): {"boxes": Term("pseudo_boxes", options={"least_score": 0.2})},
}


def everything(folder, place):
    """Of each pair of detectors what the student has learned after two steps, and its scores."""
    results = {}
    for pair, terms in TERMS.items():
        cfg = recipe(folder, folder, *pair, terms)
        task, params, where = cfg.made_task(), cfg.train_params, (place.rank, place.world, place.device)
        train, val = open_splits(cfg.data, task)
        targets = task.targets(train.classes)
        loader = TrainLoader(train, cfg.data, params.seed, *where, targets)
        validation = EvalLoader(val, cfg.data, *where, targets)
        distiller = build_distiller(cfg, train, place)
        state = State(distiller, cfg.phases, params, task, None, place)
        module = Trainer(state, loader, None).wrapped()
        distiller.train()
        for number, batch in enumerate(loader.epoch(0)):
            step_on(state, module, batch, 0.02)
            if number == 1:
                break
        parameters = [value.detach().flatten() for value in distiller.student.parameters()]
        scores = Scorer(validation, task, params, train.classes, place)(distiller.student.eval().predict)
        results[pair] = {"learned": torch.cat(parameters), "scores": scores}
        for samples in (train, val):
            samples.close()
    return results


if __name__ == "__main__":
    with ranks(10) as place:
        results = everything(Path(sys.argv[1]), place)
        if place.first:
            torch.save(results, sys.argv[2])
