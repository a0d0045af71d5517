"""A run folder that a run is begun in."""

import torch

from utils.distributed import Ranks

ONE = Ranks(0, 1, torch.device("cpu"))


def no_remarks(begun):
    """On a run of other settings."""
    return ()


def begin(folder, resume_remarks, facts, *, fresh):
    """As a run does, on its way from the settings to the first step."""
    folder.claim(resume_remarks, ONE, fresh=fresh)
    folder.begin({}, resume_remarks, facts, ONE, fresh=fresh)
