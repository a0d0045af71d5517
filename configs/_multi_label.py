"""What the configs of multi-label data are written with: networks by their papers' names, and rows of tables."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from knowledge_distiller import Term
from models.heads import HeadConfig
from models.zoo import NetworkConfig
from utils.config import entry

NETWORKS = {
    **{
        name: name for name in ("resnet18", "resnet34", "resnet50", "resnet101", "mobilenet_v2", "vgg16_bn", "vgg19_bn")
    },
    **{name: name for name in ("swin_t", "swin_s", "swin_b")},
    "wrn50": "wide_resnet50_2",
    "wrn101": "wide_resnet101_2",
    "repvgg_a0": "timm/repvgg_a0",
    "repvgg_a2": "timm/repvgg_a2",
    "tresnet_l": "timm/tresnet_l",
    "resnext50_swsl": "timm/resnext50_32x4d.fb_swsl_ig1b_ft_in1k",
}
DIMENSIONS = {  # C of the last map
    **dict.fromkeys(("resnet18", "resnet34", "vgg16_bn", "vgg19_bn"), 512),
    **{"resnet50": 2048, "resnet101": 2048, "mobilenet_v2": 1280},
}
PLACES = {"voc": "PATH/TO/voc07", "coco": "PATH/TO/coco14", "nus": "PATH/TO/nuswide"}  # packed by dataset/NAME2lmdb.py
UNSCALED = {"mean": (0.0,) * 3, "std": (1.0,) * 3}  # pixels in [0, 1], as L2D and CPSD feed them


class Row(NamedTuple):
    """One of a published table: overrides of its config, and the scores."""

    overrides: dict[str, str]
    scores: str = ""

    def __str__(self) -> str:
        words = " ".join(f"{name}={value}" for name, value in self.overrides.items())
        return f"{words}: {self.scores}" if self.scores else words


def network(name: str, key: str, weights: str, head: HeadConfig, scaling: Mapping = UNSCALED) -> NetworkConfig:
    """A network by its name in the papers, which ``key=name`` asked for."""
    return NetworkConfig(entry(NETWORKS, name, key), weights, head=head, **scaling)


def term(objective: str, weight: float = 1.0, name: str = "", **options: float | bool | str) -> dict[str, Term]:
    """A term, called as its objective unless it has another name."""
    return {name or objective: Term(objective, weight, options=options)}


def listed(config: str, scores: str, rows: Iterable[Row]) -> str:
    """What --methods shows of a config: its rows as they are typed, with their ``scores``."""
    lines = [f"Published rows: --cfg configs/{config}.py OVERRIDES; {scores}", ""]
    for row in rows:
        lines += textwrap.wrap(str(row), 118, initial_indent="  ", subsequent_indent="      ")
    return "\n".join(lines)
