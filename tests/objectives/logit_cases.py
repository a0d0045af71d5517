"""Objectives on logits with options off their defaults, each as a function of student, teacher and labels."""

from functools import partial

import slow_logits
import torch
from small_tensors import numbers
from torch.func import functional_call

from objectives.ctkd import Ctkd
from objectives.hard_label import distillation_token, hard_label
from objectives.labels import Uskd, asymmetric_single_label, cross_entropy
from objectives.logits import (
    batch_correlation,
    class_correlation,
    crld,
    dist,
    dkd,
    kd,
    mlkd,
    nkd,
    standardize,
    ttm,
    wsld,
)
from objectives.luminet import luminet
from objectives.ranked import ldrld, pcd
from objectives.regions import CatKD, Sdd
from objectives.rld import rld
from objectives.transport import wkd_l

CLASSES, MAPS = 5, ("sdd", "catkd", "catkd_raw")


def sample(name, batch=6, seed=0, scale=2.0):
    """Student, teacher, labels: logits [B, K], or maps of them [B, K, 4, 4]."""
    shape = (batch, CLASSES, 4, 4) if name in MAPS else (batch, CLASSES)
    student, teacher = (numbers(*shape, seed=10 * seed + i, scale=scale) for i in range(2))
    labels = torch.randint(0, CLASSES, (batch,), generator=torch.Generator().manual_seed(seed))
    return student.requires_grad_(), teacher, labels


WEAK = (numbers(CLASSES, CLASSES, seed=6), numbers(CLASSES, seed=7))
HEAD = [x.tolist() for x in WEAK]


def run_uskd(student, pooled, labels, *, weak=WEAK, **options):
    """In the tables below the pooled features of `uskd` stand where others have the teacher's logits."""
    values = dict(zip(("weak.weight", "weak.bias"), (x.to(student.dtype) for x in weak)))
    return functional_call(Uskd(student, pooled, **options), values, (student, pooled, labels))


def run_ctkd(student, teacher, raw=0.3, **options):
    module = Ctkd(**options).to(student.dtype)
    module.raw.data.fill_(raw)
    return module(student, teacher)


def run_sdd(student, teacher, labels, **options):
    head = [torch.eye(CLASSES, dtype=student.dtype), torch.zeros(CLASSES, dtype=student.dtype)]
    return Sdd(student, teacher, head[0], head[0], **options)(student, teacher, *head, *head, labels)


def run_catkd(student, teacher, **options):
    heads = [torch.eye(CLASSES, dtype=student.dtype)] * 2
    return CatKD(student, teacher, *heads, **options)(student, teacher, *heads)


CLASSIFIER = numbers(CLASSES, 3, seed=8)  # of the teacher


def run_wkd_l(student, teacher, labels, *, classifier=CLASSIFIER, **options):
    return wkd_l(student, teacher, labels, classifier.to(student.dtype), **options)


def run_crld(student, teacher, **options):
    """Logits of the strong views follow from the others."""
    return crld(student, teacher, 0.5 * student, -0.6 * teacher, **options)


LOSSES = {
    "cross_entropy": lambda s, _, y: cross_entropy(s, y, label_smoothing=0.3),
    "asymmetric_single_label": lambda s, _, y: asymmetric_single_label(
        s, y, gamma_positive=1.5, gamma_negative=0.5, label_smoothing=0.3
    ),
    "kd": lambda s, t, _: kd(s, t, temperature=2.0),
    "wsld": partial(wsld, temperature=2.0),
    "dkd": partial(dkd, alpha=0.7, beta=3.0, temperature=2.0),
    "dist": lambda s, t, _: dist(s, t, beta=2.0, gamma=0.5, temperature=1.5),
    "nkd": partial(nkd, gamma=0.8, temperature=2.0),
    "uskd": partial(run_uskd, alpha=0.5, beta=0.4, mu=0.3),
    "uskd_by_probability": partial(run_uskd, alpha=0.5, beta=0.4, mu=0.3, by_log=False),
    "ttm": lambda s, t, _: ttm(s, t, temperature=3.0, weighted=False),
    "wttm": lambda s, t, _: ttm(s, t, temperature=3.0),
    "ctkd": lambda s, t, _: run_ctkd(s, t, lowest=2.0, span=5.0),
    "class_correlation": lambda s, t, _: class_correlation(s, t, temperature=2.0),
    "batch_correlation": lambda s, t, _: batch_correlation(s, t, temperature=2.0),
    "mlkd": lambda s, t, _: mlkd(s, t, temperature=1.5),
    "crld": lambda s, t, _: run_crld(s, t, confidence=0.6, strong_confidence=0.45, temperature=2.0),
    "rld": partial(rld, alpha=0.7, beta=3.0, temperature=2.0),
    "ldrld": lambda s, t, _: ldrld(s, t, alpha=0.6, beta=0.3, depth=3, temperature=2.0),
    "ldrld_summed": lambda s, t, _: ldrld(s, t, alpha=0.6, beta=0.3, depth=2, temperature=2.0, averaged=False),
    "pcd": lambda s, t, _: pcd(s, t, stages=4, temperature=2.0),
    "luminet": lambda s, t, _: luminet(s, t, temperature=2.0),
    "hard_label": lambda s, t, _: hard_label(s, t),
    "distillation_token": lambda s, t, _: distillation_token(s, t),
    "wkd_l": partial(run_wkd_l, temperature=1.5, sharpness=1.5, entropy=0.2, iterations=7),
    "wkd_l_by_cka": partial(run_wkd_l, temperature=1.5, entropy=0.1, iterations=4, relation="cka"),
    "standardized": lambda s, t, _: kd(standardize(s), standardize(t), temperature=2.0),
    "sdd": partial(run_sdd, temperature=2.0),
    "catkd": lambda s, t, _: run_catkd(s, t),
    "catkd_raw": lambda s, t, _: run_catkd(s, t, resolution=1, normalize=False),
}
SLOW = {
    "cross_entropy": slow_logits.cross_entropy,
    "asymmetric_single_label": slow_logits.asymmetric_single_label,
    "kd": lambda s, t, _: slow_logits.kd(s, t, 2.0),
    "wsld": slow_logits.wsld,
    "dkd": slow_logits.dkd,
    "dist": slow_logits.dist,
    "nkd": slow_logits.nkd,
    "uskd": partial(slow_logits.uskd, head=HEAD, by_log=True),
    "uskd_by_probability": partial(slow_logits.uskd, head=HEAD, by_log=False),
    "ttm": partial(slow_logits.ttm, weighted=False),
    "wttm": partial(slow_logits.ttm, weighted=True),
    "ctkd": slow_logits.ctkd,
    "class_correlation": partial(slow_logits.gram, by_class=True),
    "batch_correlation": partial(slow_logits.gram, by_class=False),
    "mlkd": slow_logits.mlkd,
    "crld": slow_logits.crld,
    "rld": slow_logits.rld,
    "ldrld": partial(slow_logits.ldrld, depth=3, share=1 / 4),
    "ldrld_summed": partial(slow_logits.ldrld, depth=2, share=1),
    "pcd": slow_logits.pcd,
    "luminet": slow_logits.luminet,
    "hard_label": slow_logits.hard_label,
    "distillation_token": slow_logits.hard_label,
    "wkd_l": partial(slow_logits.wkd_l, rows=CLASSIFIER.tolist(), sharpness=1.5, entropy=0.2, iterations=7),
    "wkd_l_by_cka": partial(slow_logits.wkd_l, rows=CLASSIFIER.tolist(), entropy=0.1, iterations=4, by_cka=True),
    "standardized": slow_logits.standardized,
    "sdd": slow_logits.sdd,
    "catkd": partial(slow_logits.catkd, size=2, normalize=True),
    "catkd_raw": partial(slow_logits.catkd, size=4, normalize=False),
}
