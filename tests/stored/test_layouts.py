"""Records of logits: what comes back, in how many bytes, whatever the logits."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stored.layouts import LayoutConfig, layout_of, likeliest, pack, packed_size, prior_of, slope_of, unpack
from utils.errors import UsageError

CASES = [  # layout, whether classes compete
    *((LayoutConfig("all", type=kind), competing) for kind in ("float32", "float16", "int8") for competing in (0, 1)),
    *((LayoutConfig("topk", k=k), True) for k in (1, 5, 11)),
    *((LayoutConfig("prior", k=k), True) for k in (1, 5, 11)),
]
every_layout = pytest.mark.parametrize(("config", "competing"), CASES)
KEEP_LIKELIEST = [LayoutConfig("topk", k=5), LayoutConfig("prior", k=5)]


def views(images=6, count=12, classes=300):
    """Logits [count, images, classes] of which those of an image are alike, as a teacher's are; and labels."""
    draw = torch.Generator().manual_seed(0)
    of_image = 2 * torch.randn(images, classes, generator=draw)
    strength = 0.6 + torch.rand(count, images, 1, generator=draw)
    logits = 1.4 * strength * of_image + 0.4 * torch.randn(count, images, classes, generator=draw)
    return logits, torch.randint(classes, (images,), generator=draw)


def restored(config, logits, labels, prior, competing=True):
    layout = layout_of(config, 300, competing=bool(competing))
    records = layout.encode(logits, labels, prior)
    assert records.dtype == torch.uint8
    assert records.shape == (len(logits), layout.size(logits.shape[1]))
    decoded = layout.decode(records, logits.shape[1], prior)
    assert decoded.dtype == torch.float32
    assert decoded.shape == logits.shape
    return decoded


def divergence(logits, decoded, temperature=1.0):
    p, q = ((one.double() / temperature).log_softmax(1) for one in (logits, decoded))
    return (p.exp() * (p - q)).sum(1).mean().item()


def step_at(logp):
    """Half of what lies between two levels of a kept log-probability, and a bit."""
    return 0.51 * (2 * math.sqrt(-32.0 * logp.item()) / 255 + 32 / 255**2)


def test_bytes_of_a_view_of_imagenet():
    sizes = {"prior": 29, "topk": 27, "all": 1008}
    assert {name: layout_of(LayoutConfig(name), 1000, competing=True).size(1000) for name in sizes} == sizes
    assert layout_of(LayoutConfig("all", type="float16"), 1000, competing=True).size(1000) == 2000


def test_what_is_chosen_by_itself():
    assert layout_of(LayoutConfig(), 1000, competing=True) == layout_of(LayoutConfig("prior"), 1000, competing=True)
    assert layout_of(LayoutConfig(), 1000, competing=False) == layout_of(LayoutConfig("all"), 1000, competing=False)
    assert layout_of(LayoutConfig(k=5), 11, competing=True).needs_prior
    assert layout_of(LayoutConfig(k=5), 10, competing=True) == layout_of(LayoutConfig("all"), 10, competing=True)
    assert [layout_of(LayoutConfig(name), 1000, competing=True).needs_prior for name in ("prior", "topk", "all")] == [
        1,
        0,
        0,
    ]
    with pytest.raises(UsageError, match=r"layout\.name=topk .* set layout\.name=all"):
        layout_of(LayoutConfig("topk"), 1000, competing=False)


@given(data=st.data(), classes=st.integers(1, 2000), count=st.integers(1, 12), rows=st.integers(0, 3))
@settings(max_examples=60, deadline=None)
def test_any_indices_come_back_in_as_few_bits_as_they_need(data, classes, count, rows):
    row = st.lists(st.integers(0, classes - 1), min_size=count, max_size=count)
    indices = torch.tensor(data.draw(st.lists(row, min_size=rows, max_size=rows)), dtype=torch.int64).view(rows, count)
    packed = pack(indices, classes)
    assert packed.shape == (rows, packed_size(count, classes))
    assert packed_size(count, classes) == math.ceil(count * max(1, math.ceil(math.log2(classes))) / 8)
    assert torch.equal(unpack(packed, count, classes), indices)


@pytest.mark.parametrize("classes", [1, 2, 3, 256, 257, 1000, 21841, 10**6])
def test_the_first_and_the_last_class_in_every_place(classes):
    for count in range(1, 12):
        first = (classes - 1) * torch.eye(count, dtype=torch.int64)
        for indices in (first, classes - 1 - first):
            assert torch.equal(unpack(pack(indices, classes), count, classes), indices)


@every_layout
def test_damaged_records_name_no_class_that_there_is_not(config, competing):
    layout = layout_of(config, 300, competing=bool(competing))
    records = torch.randint(256, (50, layout.size(300)), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    assert layout.decode(records, 300, torch.zeros(50, 300, dtype=torch.int8)).shape == (50, 300)


def test_float32_is_exact_and_keeps_nothing_of_its_records():
    logits = torch.cat([views()[0][0], torch.full((1, 300), -torch.inf), torch.full((1, 300), torch.nan)])
    layout = layout_of(LayoutConfig("all", type="float32"), 1000, competing=True)
    records = layout.encode(logits)
    decoded = layout.decode(records, 300)
    records.zero_()
    assert torch.equal(decoded.view(torch.int32), logits.view(torch.int32))


@pytest.mark.parametrize("competing", [False, True])
def test_numbers_of_all_classes_are_kept_to_half_a_step(competing):
    logits = views()[0].flatten(0, 1)
    halves = restored(LayoutConfig("all", type="float16"), logits, None, None, competing)
    shift = logits.amax(1, keepdim=True) if competing else 0.0
    assert (halves - (logits - shift)).abs().max() <= 32 / 2048
    levels = restored(LayoutConfig("all"), logits, None, None, competing)
    low, high = logits.amin(1, keepdim=True), logits.amax(1, keepdim=True)
    assert ((levels - logits).abs() <= (high - low) / 255 / 2 + 1e-5).all()
    assert torch.equal(levels.amax(1, keepdim=True), high) or (levels.amax(1, keepdim=True) - high).abs().max() < 1e-5


@pytest.mark.parametrize("config", KEEP_LIKELIEST)
def test_the_likeliest_and_the_true_class_are_kept_to_half_a_step(config):
    logits, labels = views()
    logits, prior = logits[8], prior_of(logits[:8])
    labels[0] = logits[0].argmin()
    logp = logits.double().log_softmax(1)
    decoded = restored(config, logits, labels, prior).double()
    for row, label in enumerate(labels):
        best = logp[row].topk(4).indices
        for place in {*best.tolist(), label.item()}:
            assert abs(decoded[row, place] - logp[row, place]) < 0.01 + step_at(logp[row, place])


@pytest.mark.parametrize("config", KEEP_LIKELIEST)
def test_what_is_decoded_are_log_probabilities(config):
    logits, labels = views()
    decoded = restored(config, logits[8], labels, prior_of(logits[:8]))
    assert (decoded.double().exp().sum(1) - 1).abs().max() < 1e-5


@every_layout
def test_a_record_depends_on_its_row_alone(config, competing):
    logits, labels = views(images=300, count=9, classes=40)
    logits, prior = logits[8].bfloat16(), prior_of(logits[:8])  # with equals among the likeliest
    layout = layout_of(config, 300, competing=bool(competing))
    records = layout.encode(logits, labels, prior)
    decoded = layout.decode(records, 40, prior)
    for rows in (slice(0, 1), slice(7, 8), slice(3, 290), slice(299, 300), slice(0, 0)):
        assert torch.equal(layout.encode(logits[rows], labels[rows], prior[rows]), records[rows])
        torch.testing.assert_close(layout.decode(records[rows], 40, prior[rows]), decoded[rows])


def test_of_equals_the_first():
    equal = torch.zeros(2, 50).index_fill(1, torch.tensor([30, 40]), 1.0)
    equal[:, 1] = -0.0
    assert likeliest(equal, 5)[0].tolist() == [30, 40, 0, 1, 2]
    assert likeliest(-equal, 3)[1].tolist() == [0, 1, 2]
    assert likeliest(equal, 5, torch.tensor([40, 49])).tolist() == [[30, 40, 0, 1, 2], [30, 40, 0, 1, 49]]
    assert likeliest(torch.tensor([[-3.0, -1.0, -2.0, 0.5, -torch.inf]]), 5).tolist() == [[3, 1, 2, 0, 4]]


@pytest.mark.parametrize("temperature", [1.0, 2.0, 4.0])
def test_more_classes_or_a_prior_lose_less(temperature):
    logits, labels = views()
    prior, seen = prior_of(logits[:8]), logits[8:]
    loss = {
        (name, k): sum(divergence(x, restored(LayoutConfig(name, k=k), x, labels, prior), temperature) for x in seen)
        for name in ("topk", "prior")
        for k in (3, 11, 40, 150, 300)
    }
    for name in ("topk", "prior"):
        falling = [loss[name, k] for k in (3, 11, 40, 150, 300)]
        assert falling == sorted(falling, reverse=True)
        assert falling[-1] < 0.002  # what the levels cost, for every class is kept
    assert all(loss["prior", k] < 0.5 * loss["topk", k] for k in (3, 11, 40))


def test_views_that_are_affine_in_the_prior_come_back_from_few_classes():
    prior = torch.randint(-128, 128, (6, 300), generator=torch.Generator().manual_seed(0)).to(torch.int8)
    logits = torch.tensor([[0.01], [0.05], [0.09], [-0.03], [0.0], [0.2]]) * prior + 3
    decoded = restored(LayoutConfig("prior", k=3), logits, None, prior)
    assert divergence(logits, decoded) < 1e-3
    assert divergence(logits, decoded, 4.0) < 1e-3


def test_a_prior_is_the_mean_of_log_probabilities_in_the_range_of_its_image():
    logits = views()[0][:8]
    prior = prior_of([*logits])
    assert prior.dtype == torch.int8
    assert torch.equal(prior, prior_of(logits))
    mean = logits.double().log_softmax(2).mean(0).numpy()
    low, high = mean.min(1, keepdims=True), mean.max(1, keepdims=True)
    assert np.array_equal(prior.numpy(), np.round((mean - low) / (high - low) * 255) - 128)
    assert torch.equal(prior_of(torch.zeros(2, 3, 5)), torch.full((3, 5), -128, dtype=torch.int8))


def test_decoding_as_it_is_written_down():
    """The record of 11 of 300 classes by bytes and loops, in float64."""
    logits, labels = views()
    prior = prior_of(logits[:8])
    layout = layout_of(LayoutConfig("prior"), 1000, competing=True)
    records = layout.encode(logits[9], labels, prior)
    decoded = layout.decode(records, 300, prior)
    for record, shape, row in zip(records.tolist(), prior.tolist(), decoded.tolist(), strict=True):
        bits = sum(byte << 8 * place for place, byte in enumerate(record[:13]))
        places = [bits >> 9 * j & 511 for j in range(11)]
        kept = {place: -32.0 * (level / 255) ** 2 for place, level in zip(places, record[13:24], strict=True)}
        mass, slope = np.frombuffer(bytes(record[24:]), np.float16).astype(float)
        rest = {k: math.exp(slope * shape[k]) for k in range(300) if k not in kept}
        offset = mass - math.log(sum(rest.values()))
        logp = kept | {k: slope * shape[k] + offset for k in rest}
        total = math.log(sum(map(math.exp, logp.values())))
        assert row == pytest.approx([logp[k] - total for k in range(300)], abs=1e-4)


HOSTILE = {
    "large": lambda x: x * 1e4,
    "one-hot": lambda x: torch.where(x == x.amax(1, keepdim=True), 1e4, -1e4),
    "equal": torch.zeros_like,
    "some -inf": lambda x: x.masked_fill(torch.arange(x.shape[1]) % 3 == 1, -torch.inf),
    "all but one -inf": lambda x: x.masked_fill(torch.arange(x.shape[1]) > 0, -torch.inf),
    "float16": torch.Tensor.half,
    "bfloat16": torch.Tensor.bfloat16,
    "float64": torch.Tensor.double,
}


@every_layout
@pytest.mark.parametrize("classes", [1, 2, 11, 12, 200])
@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_logits_decode_to_finite_ones(config, competing, classes, kind):
    logits, labels = views(classes=classes)
    logits = torch.stack([HOSTILE[kind](view) for view in logits[6:]])
    decoded = restored(config, logits[3], labels, prior_of(logits), competing)
    if config.type != "float32":
        assert decoded.isfinite().all()
    if config.name == "all" or config.k > 1:  # else the true class is all there is
        assert (decoded.amax(1) - decoded.gather(1, logits[3].argmax(1)[:, None])[:, 0]).max() < 0.1


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("classes", [2, 11, 200])
@every_layout
def test_a_teacher_that_diverged_is_seen(config, competing, classes, value):
    logits, labels = views(classes=classes)
    logits[9, 2, 1] = value
    decoded = restored(config, logits[9], labels, prior_of(logits[:8]), competing)
    seen = decoded.isfinite().all(1)
    assert seen.tolist() == [True, True, False, True, True, True]
    if config.type != "float32" or value != torch.inf:
        assert decoded[2].isnan().any()


def test_logits_far_below_the_largest_cost_the_others_no_levels():
    logits = views()[0]
    far = logits.index_fill(2, torch.tensor([5, 6]), -1e4)
    decoded = restored(LayoutConfig("all"), far[9], None, None)
    assert (decoded - logits[9]).index_fill(1, torch.tensor([5, 6]), 0.0).abs().max() < 64 / 255
    others = prior_of(far[:8])[:, 7:].int()
    assert (others.amax(1) - others.amin(1)).min() > 30
    decoded = restored(LayoutConfig("topk", k=2), far[9], torch.full((6,), 5), None)
    assert ((decoded[:, 5] + 32).abs() < 0.1).all()


def test_the_slope_serves_temperatures_of_one_and_of_four():
    """Where a line does not fit, the likelier classes count more than the others, but do not alone."""
    prior = torch.arange(-128, 128).to(torch.int8).repeat(1, 1)
    x = (prior.double() + 128) / 255
    logits = 12 * x - 24 * (1 - x).square()
    slope = {power: slope_at(logits, prior, power) for power in (0.0, 0.5, 3.0)}
    ours = slope_of(logits.double().log_softmax(1), prior.double(), torch.ones_like(logits, dtype=torch.bool)).item()
    assert slope[3.0] < ours < slope[0.0]
    assert ours == pytest.approx(slope[0.5])


def slope_at(logits, prior, power):
    """Of the line by numpy's least squares, which takes square roots of weights."""
    weights = np.sqrt(np.exp(power * logits.double().log_softmax(1)[0].numpy()))
    return np.polyfit(prior[0].double().numpy(), logits[0].double().numpy(), 1, w=weights)[0]


def test_a_class_that_is_ruled_out_does_not_cost_the_others_their_levels():
    logits = views()[0][0]
    ruled_out = logits.index_fill(1, torch.tensor([5]), -torch.inf)
    decoded = restored(LayoutConfig("all"), ruled_out, None, None)
    assert (decoded - logits).index_fill(1, torch.tensor([5]), 0.0).abs().max() < 64 / 255
    decoded = restored(LayoutConfig("all"), ruled_out, None, None, competing=False)
    assert (decoded - logits).index_fill(1, torch.tensor([5]), 0.0).abs().max() < 64 / 255
