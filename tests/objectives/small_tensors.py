"""Small tensors in float64, by chance and by hand."""

import torch


def numbers(*shape, seed=0, scale=1.0):
    """From a normal distribution, the same for a seed."""
    return scale * torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def tensor(*values):
    return torch.tensor(values, dtype=torch.float64)


def row(*values):
    """A map of one sample, one channel and one row."""
    return tensor(*values).view(1, 1, 1, -1)


def log(*rows):
    """Logits of probabilities."""
    return torch.tensor(rows, dtype=torch.float64).log()
