"""Partitions of a graph of labels by how often they occur together. N images, C classes.

Xu et al., Boosting multi-label image classification with complementary parallel self-distillation, IJCAI 2022.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
from sklearn.cluster import SpectralClustering
from sklearn.metrics import calinski_harabasz_score

from partition.parts import Partition
from utils.errors import UsageError

KINDS = ("CGP", "DGP", "random")
_RUNS, _STARTS = 4, 20  # clusterings, of which the best is kept; starts of k-means in each: the authors' numbers


def cooccurrence(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How many images show two classes, [C, C] with a diagonal of 0, and how many one, [C].

    Args:
        labels: int8 [N, C]; what is to be ignored counts as present, as it does there.
    """
    present = (labels != 0).astype(np.float32)  # exact below 2^24 images
    together = np.rint(present.T @ present).astype(np.int64)
    counts = together.diagonal().copy()
    np.fill_diagonal(together, 0)
    return together, counts


def affinity(together: np.ndarray, counts: np.ndarray, kind: str) -> np.ndarray:
    """The weights of the graph, [C, C].

    With P the square root of the share of a class's images that show another one, the symmetric part of P (CGP: classes
    that occur together are near) or of 1 - P (DGP: those that do not). A class without images is near none.
    """
    shares = np.sqrt(together / np.maximum(counts, 1)[None, :])
    weights = shares if kind == "CGP" else 1 - shares
    return (weights + weights.T) / 2


def partition(labels: np.ndarray, classes: Sequence[str], kind: str, parts: int, seed: int) -> Partition:
    """The classes in ``parts``.

    Spectral clustering of the graph, several times, of which the one with the highest Calinski-Harabasz score, of the
    rows of the affinity, is kept; or parts of equal size at random. Parts are in the order of their first class.

    Args:
        labels: int8 [N, C], of the training images.
        classes: C names.
        kind: one of `KINDS`.
        parts: from 1 to C.
        seed: of the draws; other versions of scikit-learn may draw otherwise.

    Raises:
        UsageError: there are fewer classes than parts.
    """
    if not 1 <= parts <= len(classes):
        raise UsageError(f"--parts {parts}: from 1 to {len(classes)}, the number of classes")
    if kind == "random":
        order = np.random.default_rng(seed).permutation(len(classes))
        groups = [np.sort(group) for group in np.array_split(order, parts)]
    else:
        assigned = _clustered(affinity(*cooccurrence(labels), kind), parts, seed)
        groups = [np.flatnonzero(assigned == part) for part in range(parts)]
    named = [tuple(classes[label] for label in group) for group in groups if len(group)]
    return Partition(tuple(sorted(named, key=lambda part: classes.index(part[0]))), kind, seed)


def _clustered(weights: np.ndarray, parts: int, seed: int) -> np.ndarray:
    """The part of each class, [C]."""
    if parts in (1, len(weights)):
        return np.arange(len(weights)) % parts if parts > 1 else np.zeros(len(weights), np.int64)
    found = []
    for run in range(_RUNS):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Graph is not fully connected")  # a class that occurs alone
            draws = {"n_init": _STARTS, "random_state": seed * _RUNS + run}
            assigned = SpectralClustering(parts, affinity="precomputed", **draws).fit_predict(weights)
        used = len(np.unique(assigned))
        score = calinski_harabasz_score(weights, assigned) if 1 < used < len(weights) else -np.inf
        found.append((score, -run, assigned))
    return max(found, key=lambda one: one[:2])[2]
