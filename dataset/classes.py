"""Whether two splits mean the same by their labels, and are two."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from dataset.store.samples import Samples
from utils.errors import UsageError
from utils.text import in_utf8, spelled


def check_splits(train: Samples, val: Samples) -> list[str]:
    """Remarks on two splits that training and validation can be done with.

    Raises:
        UsageError: as `check_same_classes` and `check_apart`.
    """
    check_same_classes(train, val)
    return [*check_apart(train, val), *train.remarks, *val.remarks]


def check_same_classes(train: Samples, val: Samples) -> None:
    """Compare the names of the classes; ``val`` may lack the last ones.

    Where nothing names a class (no image of it in WSLD's format, or in a list without classes.txt), its name is its
    label, and agrees with any. A split without labels may also lack all names.

    Raises:
        UsageError: naming the first label that is another class in ``val``, or none of ``train``.
    """
    ours, theirs = _names(train), _names(val)
    again = "list and pack both splits again, from one folder that holds train/ and val/"
    for label, (our, their) in enumerate(zip(ours, theirs)):
        if our is not None and their is not None and our != their:
            raise UsageError(f"label {label} is {spelled(our)} in train and {spelled(their)} in val: {again}")
    if len(theirs) > len(ours):
        label, name = len(ours), val.classes[len(ours)]
        raise UsageError(
            f"label {label} is {spelled(name)} in val, and train has labels 0 to {label - 1} only: {again}"
        )


def check_learnable(train: Samples, readers: Mapping[str, str]) -> None:
    """See that nothing learns from labels that are not there.

    Args:
        train: the training split.
        readers: the objectives that read labels, by the names of their terms.

    Raises:
        UsageError: there are some, and the split has no labels.
    """
    if readers and train.unlabelled:
        named = " and ".join(f"terms.{term} ({objective})" for term, objective in readers.items())
        raise UsageError(
            f"{named}: learns from labels, and the training images have none: leave it out, and compare the student "
            "with a teacher alone (docs/own_data.md says by what), or pack the images with their labels"
        )


def check_apart(train: Samples, val: Samples) -> list[str]:
    """A remark where packed splits seem to have changed places.

    Raises:
        UsageError: two folders hold the same shard.
    """
    if train.packed is None or val.packed is None or train.packed[0] == val.packed[0]:
        return []
    (trained, ours), (held_out, theirs) = train.packed, val.packed
    file_of = {shard.sha256: shard.file for shard in ours.shards if shard.records}
    if same := next((shard for shard in theirs.shards if shard.sha256 in file_of), None):
        raise UsageError(
            f"{held_out / same.file} is {trained / file_of[same.sha256]}: validation would be on the images "
            f"that are trained on; pack others, or ask for it with data.val_split={trained.name}"
        )
    return [
        f"warning: {folder} was packed as {index.split}"
        for folder, index, other in ((trained, ours, held_out), (held_out, theirs, trained))
        if index.split == other.name != folder.name
    ]


def _names(samples: Samples) -> list[str | None]:
    """The name of each class by label, as an index spells it; None where it is not known."""
    labels = samples.labels
    present = set((labels.any(axis=0).nonzero()[0] if labels.ndim == 2 else np.unique(labels)).tolist())
    names = map(in_utf8, samples.classes)
    return [name if label in present or name != str(label) else None for label, name in enumerate(names)]
