"""What a student may be asked to match. Importing this package registers every objective."""

from objectives import crd, fitnet, fsp, kdsvd, labels, logits, lshfm, maps, ofd, regions, relations, reviewkd, vid
from objectives.contract import Objective, get, objective

__all__ = [
    "Objective",
    "crd",
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
    "regions",
    "relations",
    "reviewkd",
    "vid",
]
