"""Which GPUs each of several processes is given."""

import pytest
import torch

from training.fan_out import shares_of_gpus


@pytest.mark.parametrize(
    ("visible", "count", "processes", "shares"),
    [
        ("", 0, 3, ["", "", ""]),
        ("", 8, 8, list("01234567")),
        ("", 8, 3, ["0,3,6", "1,4,7", "2,5"]),
        ("", 4, 8, list("01230123")),
        ("4,5", 2, 2, ["4", "5"]),
        ("4,5", 2, 3, ["4", "5", "4"]),
        ("GPU-a,GPU-b", 2, 1, ["GPU-a,GPU-b"]),
    ],
)
def test_shares_are_of_the_visible_gpus(visible, count, processes, shares, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    assert shares_of_gpus(processes) == shares
