"""A run folder that a run is begun in."""

import torch

from utils.distributed import Ranks

ONE = Ranks(0, 1, torch.device("cpu"))


def no_remarks(begun):
    """On a run of other settings."""
    return ()


def begin(folder, goes_on, facts, *, fresh):
    """As a run does, on its way from the settings to the first step."""
    folder.claim(goes_on, ONE, fresh=fresh)
    folder.begin({}, goes_on, facts, ONE, fresh=fresh)
