"""A detector by name: its network, weights and input normalisation. K classes without background."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from torch import nn

from models.detectors import making, weights
from models.detectors.detector import NORM_EPSILON, Detector
from models.detectors.names import parsed
from models.detectors.one_stage import OneStage
from models.detectors.two_stage import TwoStage
from models.outputs import IMAGENET, Normalization
from utils.errors import UsageError

if TYPE_CHECKING:
    from models.zoo import NetworkConfig


def build_detector(
    config: NetworkConfig,
    num_classes: int,
    reads: Iterable[str] = (),
    classes: tuple[str, ...] = (),
    *,
    new_classifier: bool = False,
    sync_bn: bool = False,
) -> Detector:
    """The detector of ``config`` for K classes, giving what ``reads`` names.

    Outputs of weights that are known by name are put in the order of ``classes``, so that a detector for other classes
    beside these, or for these in another order, serves too.

    Args:
        config: with a name as `models.detectors.names` spells them.
        num_classes: K.
        reads: features and context that are read; a name ending in `*` is every level or stage.
        classes: names of the K classes; empty where they are not known.
        new_classifier: whether it is to be trained: weights may then lack classes, or be of the backbone alone.
        sync_bn: whether batch norms go by the samples of all ranks.

    Raises:
        UsageError: unknown name, settings or weights that do not fit, or something read that it does not give.
        DataError: a file of weights is damaged.
    """
    named = parsed(config.name)
    if config.head.name != "own":
        raise UsageError(f"head.name={config.head.name}: {config.name} is a detector, which has its own heads")
    if config.taps:
        raise UsageError(f"taps: {config.name} is a detector, whose features are known: leave taps out")
    if config.num_classes not in (None, num_classes):
        raise UsageError(f"num_classes: {config.name} is a detector, which has one output for each class of the data")
    found = weights.find(config.weights, named)
    if found and not found.whole and not new_classifier:
        raise UsageError(
            f"{config.weights} are weights of {named.backbone} alone: heads of {named.name} would be random"
        )
    network = making.made(named, config.detector, num_classes)
    if found:
        weights.load(network, found, named, num_classes, classes, new_classifier=new_classifier)
    if sync_bn:
        network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
    default = (found and found.normalization) or IMAGENET
    normalization = Normalization(config.mean or default.mean, config.std or default.std)
    made = (TwoStage if named.two_stage else OneStage)(network, normalization, num_classes, reads, config.name)
    if found and found.epsilon is not None:
        made.note(NORM_EPSILON, found.epsilon)
    if found and found.whole and (classes or len(found.classes) == num_classes):
        made.classes = classes or found.classes
    return made
