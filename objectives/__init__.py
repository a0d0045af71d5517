"""What a student may be asked to match. Importing this package registers every objective."""

from objectives import (
    ab,
    crd,
    ctkd,
    fitnet,
    fsp,
    kdsvd,
    labels,
    logits,
    lshfm,
    maps,
    ofd,
    projected,
    regions,
    relations,
    reviewkd,
    vid,
)
from objectives.contract import Objective, get, objective

__all__ = [
    "Objective",
    "ab",
    "crd",
    "ctkd",
    "fitnet",
    "fsp",
    "get",
    "kdsvd",
    "labels",
    "logits",
    "lshfm",
    "maps",
    "objective",
    "ofd",
    "projected",
    "regions",
    "relations",
    "reviewkd",
    "vid",
]
