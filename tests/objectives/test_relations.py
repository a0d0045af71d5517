"""SP, PKT, CC and RKD by hand, and PKT where rounding tells."""

import math

import pytest
import torch
from small_tensors import numbers, tensor

from objectives import relations


def test_relations_by_hand():
    apart, alike = tensor([1, 0], [0, 1]), tensor([1, 0], [1, 0])
    # Rows (1, 1) / sqrt 2 to (1, 0) and (0, 1): twice 3/2 - sqrt 2 and twice 1/2, over 4.
    assert relations.sp(alike, apart).item() == pytest.approx(1 - math.sqrt(2) / 2)
    # Rows (2/3, 1/3) to (1/2, 1/2): (ln 3/4 + ln 3/2) / 2 each, over 2.
    assert relations.pkt(apart, alike).item() == pytest.approx(math.log(9 / 8) / 4, rel=1e-5)
    # exp(-2 gamma) to 1 in two of four places.
    assert relations.cc(apart, alike, gamma=0.5).item() == pytest.approx((1 - math.exp(-1)) ** 2 / 2)
    # Distances 1 2 3 over 2 to 1 1 2 over 4/3: a quarter off in two pairs.
    assert relations.rkd_distance(tensor([0], [1], [3]), tensor([0], [1], [2])).item() == pytest.approx(4 / 32 / 9)
    # Cosines 0, 1 / sqrt 2, 1 / sqrt 2 to 1, -1, 1; the middle one is off by more than 1.
    value = relations.rkd_angle(tensor([0, 0], [1, 0], [0, 1]), tensor([0], [1], [2]))
    root = math.sqrt(1 / 2)
    assert value.item() == pytest.approx(2 * (1 / 2 + root + 1 / 2 + (1 - root) ** 2 / 2) / 27)
    # 1 * 3 + 2 * 1, then 0 + 2.
    value = relations.consecutive(tensor([1, -2], [3, 1], [0, 2]), tensor([0, 0], [0, 0], [0, 0]))
    assert value.item() == pytest.approx(3.5)


def test_pkt_of_opposite_samples_is_finite_where_rounding_takes_their_cosine_below_minus_one():
    for seed in range(100):
        x, other = (numbers(1, 512, seed=seed + 100 * k).float() for k in range(2))
        x, other = torch.cat([x, -x]), torch.cat([other, 2 * other])
        assert relations.pkt(x, other).isfinite()
        assert relations.pkt(other, x).isfinite()
