"""Objectives on features of small shapes, with options off their defaults, each beside its slow reference."""

from functools import partial
from typing import Any, NamedTuple

import slow_features as slow
import slow_generated
import torch
from small_tensors import numbers
from torch import nn

from objectives import maps, relations
from objectives.ab import Ab
from objectives.crd import Crd
from objectives.diffkd import DiffKd
from objectives.fgd import Fgd
from objectives.fitnet import FitNet
from objectives.fsp import Fsp
from objectives.gaussians import WkdF
from objectives.kdsvd import kdsvd
from objectives.levels import Cwd, Mgd, pkd
from objectives.lshfm import Lshfm, LshfmWindows
from objectives.masked import MgdLast, ViTKD
from objectives.ofd import Ofd
from objectives.phi_s import PhiS
from objectives.projected import Ickd, Srd, Srrl
from objectives.relations import ConsecutiveCorrelation
from objectives.reviewkd import ReviewKD, ReviewKDLevels, hcl
from objectives.vid import Vid

BATCH = 4
SHAPES = {  # of one sample, for student and teacher
    "pooled": ([(5,)], [(7,)]),
    "equal": ([(5,)], [(5,)]),
    "last": ([(3, 4, 4)], [(4, 2, 2)]),
    "whole": ([(3, 5, 5)], [(4, 5, 5)]),
    "stages": ([(3, 4, 4), (5, 2, 2)], [(4, 8, 8), (5, 2, 2)]),
    "same": ([(3, 4, 4), (5, 2, 2)], [(3, 4, 4), (5, 2, 2)]),
    "pyramid": ([(3, 8, 8), (5, 2, 2)], [(3, 8, 8), (5, 2, 2)]),
    "pooled_too": ([(3, 4, 4), (5, 2, 2), (6,)], [(4, 4, 4), (6, 2, 2), (7,)]),
}
SHAPES["towers"] = ([(3, 4, 4), (3, 2, 2)],) * 2
SHAPES["levels"] = ([(3, 4, 4), (5, 2, 2)], [(4, 4, 4), (5, 2, 2)])
HEAD, BIAS = numbers(6, 4, seed=1), numbers(6, seed=2)
NORM = nn.BatchNorm2d(4)
NORM.weight.data, NORM.bias.data = torch.tensor([1.0, 0.5, -2.0, 1.5]), torch.tensor([0.0, 1.0, -1.0, 3.0])
INDEX = torch.tensor([4, 2, 11, 5])
COMPARED = torch.tensor([[4, 2, 3, 3, 15], [2, 0, 1, 4, 5], [11, 12, 13, 0, 0], [5, 6, 7, 14, 15]])
USABLE = torch.arange(BATCH * 20).view(BATCH, 20) % torch.tensor([[2], [3], [5], [100]]) == 1  # none of the last
CANVAS = torch.zeros(BATCH, 3, 32, 32)
BOXES = torch.tensor([[[2, 3, 20, 11], [10, 8, 31, 32]], [[0, 0, 32, 32], [9, 9, 15, 23]]] * 2).float()
CLASSES = torch.tensor([[1, 0], [2, 3], [4, -1], [-1, -1]])
LEARNED = torch.tensor([[1, 1], [1, -1], [1, 0], [0, 0]], dtype=torch.int8)
VERDICTS = numbers(BATCH, 2, seed=3)  # of the teacher
RIGHT = [0, 3]
MISSING = torch.arange(BATCH * 4).view(BATCH, 1, 2, 2) % 3 > 0
DRAWS = numbers(BATCH, 2, 2, 2, seed=4), torch.tensor([7, 999, 0, 300]), numbers(BATCH, 2, 2, 2, seed=5)
KNOWN = torch.tensor([VERDICTS[i].argmax() ^ (i not in RIGHT) for i in range(BATCH)])


class Case(NamedTuple):
    """An objective: what it reads, how it is made for features, its slow reference, and how it is called."""

    reads: str
    make: Any
    slow: Any
    call: Any = None

    def given(self, student, teacher):
        if self.call is not None:
            return self.call(student, teacher)
        return (student[0], teacher[0]) if len(SHAPES[self.reads][0]) == 1 else (student, teacher)


def make_crd(student, teacher):
    module = Crd(student[0], teacher[0], torch.arange(16) // 2 % 2, dimensions=3, contrasts=4, temperature=0.5)
    module.constants.copy_(torch.tensor([5.0, 9.0]))
    module.forward = module.contrast
    return module


def make_vitkd(student, teacher):
    module = ViTKD(student, teacher, masked=0.7, generation=0.3)
    module.missing = lambda x: MISSING[: len(x)]
    return module


def make_diffkd(student, teacher):
    module = DiffKd(student[0], teacher[0], steps=2)
    module.encoder.requires_grad_(False)  # it does not learn from the whole value: test_generated.py
    module.draws = lambda x: [one[: len(x)].to(x.dtype) if one.is_floating_point() else one[: len(x)] for one in DRAWS]
    return module


def make_phi_s(student, teacher):
    module = PhiS(student[0], teacher[0], hidden=3)
    module(student[0].float(), teacher[0].float())  # which measures
    return module


def wkd_f(**options):
    return Case("last", lambda s, t: WkdF(s[0], t[0], **options), partial(slow_generated.wkd_f, **options))


def lshfm(hashes, features, *, correct_only=False):
    def make(student, teacher):
        return Lshfm(
            student[0],
            teacher[0],
            HEAD,
            hashes=8,
            hash_distance=hashes,
            feature_distance=features,
            correct_only=correct_only,
        )

    expected = partial(slow.lshfm, hashes=hashes, features=features, counts=RIGHT if correct_only else None)
    return Case("equal", make, expected, lambda s, t: (s[0], t[0], VERDICTS[: len(s[0])], KNOWN[: len(s[0])]))


def fgd(student, teacher):
    several = len(student[0])
    return student, teacher, BOXES[:several], CLASSES[:several], LEARNED[:several], CANVAS[:several]


FGD = {"temperature": 0.7, "foreground": 0.5, "background": 0.3, "attention": 0.2, "relation": 0.1}
SCENE = {"boxes": BOXES.tolist(), "objects": [[0, 1], [0], [0], []], "side": 32}


def function(reads, call, expected):
    return Case(reads, lambda s, t: call, expected)


CASES = {
    "fitnet": Case("stages", FitNet, slow.fitnet),
    "at": function("stages", maps.at, slow.at),
    "nst": function("stages", maps.nst, slow.nst),
    "fsp": Case("same", Fsp, slow.fsp),
    "kdsvd": function("same", kdsvd, None),
    "vid": Case("stages", partial(Vid, variance=2.0), slow.vid),
    "vid_of_a_least_variance": Case("stages", partial(Vid, epsilon=0.7), partial(slow.vid, epsilon=0.7)),
    "ab": Case("stages", partial(Ab, margin=0.7), slow.ab),
    "ofd": Case(
        "stages",
        lambda s, t: Ofd(s, t, [NORM, None]),
        partial(slow.ofd, norm=(NORM.weight.tolist(), NORM.bias.tolist())),
    ),
    "ofd_of_wide_kernels": Case(
        "stages",
        lambda s, t: Ofd(s, t, [NORM, None], kernel_size=3),
        partial(slow.ofd, norm=(NORM.weight.tolist(), NORM.bias.tolist())),
    ),
    "hcl": function("pyramid", hcl, slow.hcl),
    "reviewkd": Case(
        "pooled_too",
        lambda s, t: ReviewKD(s[:-1], s[-1], t[:-1], t[-1], channels=2),
        slow.reviewkd,
        lambda s, t: (s[:-1], s[-1], t[:-1], t[-1]),
    ),
    "sp": function("last", relations.sp, slow.sp),
    "pkt": function("pooled", relations.pkt, slow.pkt),
    "rkd_distance": function("pooled", relations.rkd_distance, slow.rkd_distance),
    "rkd_squared": function(
        "pooled", partial(relations.rkd_distance, squared=True), partial(slow.rkd_distance, power=2)
    ),
    "rkd_angle": function("pooled", relations.rkd_angle, slow.rkd_angle),
    "cc": function("pooled", partial(relations.cc, gamma=0.6), slow.cc),
    "consecutive": Case("pooled", lambda s, t: ConsecutiveCorrelation(s[0], t[0], dimensions=3), slow.consecutive),
    "crd": Case(
        "pooled",
        make_crd,
        partial(slow.crd, compared=COMPARED.tolist(), temperature=0.5),
        lambda s, t: (s[0], t[0], INDEX[: len(s[0])], COMPARED[: len(s[0])]),
    ),
    "lshfm": lshfm("sign", "l2"),
    "lshfm_of_correct": lshfm("sign", "l2", correct_only=True),
    "lshfm_sign": lshfm("sign", "none"),
    "lshfm_hash_l1": lshfm("l1", "none"),
    "lshfm_hash_l2": lshfm("l2", "l1"),
    "lshfm_l2": lshfm("none", "l2"),
    "lshfm_directions": lshfm("none", "l2_normalised"),
    "srrl": Case(
        "last",
        lambda s, t: Srrl(s[0], t[0], HEAD),
        partial(slow.srrl, head=HEAD.numpy()),
        lambda s, t: (s[0], t[0], HEAD.to(s[0].dtype), BIAS.to(s[0].dtype)),
    ),
    "ickd": Case("last", lambda s, t: Ickd(s[0], t[0]), slow.ickd),
    "pkd": function("same", pkd, slow.pkd),
    "cwd": Case("levels", partial(Cwd, temperature=0.5), partial(slow.cwd, temperature=0.5)),
    "mgd": Case("levels", partial(Mgd, masked=0.0), slow.mgd),
    "fgd": Case("levels", partial(Fgd, **FGD), partial(slow.fgd, **FGD, **SCENE), fgd),
    "reviewkd_levels": Case("levels", partial(ReviewKDLevels, channels=2), slow.reviewkd),
    "lshfm_windows": Case(
        "towers",
        lambda s, t: LshfmWindows(s, t, HEAD, hashes=8),
        partial(slow.lshfm_windows, usable=USABLE.numpy()),
        lambda s, t: (s, t, USABLE[: len(s[0])]),
    ),
    "lshfm_windows_l1": Case(
        "towers",
        lambda s, t: LshfmWindows(s, t, HEAD, hash_distance="none", feature_distance="l1"),
        partial(slow.lshfm_windows, usable=USABLE.numpy(), hashes="none", features="l1"),
        lambda s, t: (s, t, USABLE[: len(s[0])]),
    ),
    "wkd_f": wkd_f(ratio=0.7, grid=1),
    "wkd_f_of_a_grid": wkd_f(ratio=1.5, grid=2, hidden=2),
    "wkd_f_of_covariances": wkd_f(ratio=0.7, grid=1, full=True),
    "wkd_f_of_covariances_of_a_grid": Case(
        "whole",
        lambda s, t: WkdF(s[0], t[0], ratio=0.7, grid=2, full=True),
        partial(slow_generated.wkd_f, ratio=0.7, grid=2, full=True),
    ),
    "mgd_last": Case("last", lambda s, t: MgdLast(s[0], t[0], masked=0.0), slow_generated.mgd_last),
    "vitkd": Case(
        "levels",
        make_vitkd,
        partial(slow_generated.vitkd, masked=0.7, generation=0.3, missing=MISSING[:, 0].numpy()),
    ),
    "diffkd": Case(
        "last",
        make_diffkd,
        partial(slow_generated.diffkd, draws=[one.numpy() for one in DRAWS], times=[250, 0]),
    ),
    "phi_s": Case("last", make_phi_s, slow_generated.phi_s),
    "srd": Case("pooled", lambda s, t: Srd(s[0], t[0], power=3.0), slow.srd),
}


def sample(name, batch=BATCH, seed=0):
    seeds = iter(range(10 * seed, 10 * seed + 10))
    return [[numbers(batch, *shape, seed=next(seeds)) for shape in side] for side in SHAPES[CASES[name].reads]]


def made(name, student, teacher):
    """The objective with the same parameters every time, none of them at its neutral value."""
    torch.manual_seed(0)
    module = CASES[name].make(student, teacher)
    if isinstance(module, nn.Module):
        for parameter in module.parameters():
            parameter.data += 0.2 * torch.randn(parameter.shape)
        module.to(student[0].dtype)
    return module


def value(name, student, teacher):
    return made(name, student, teacher)(*CASES[name].given(student, teacher))
