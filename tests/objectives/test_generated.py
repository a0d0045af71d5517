"""MGD for classifiers, ViTKD and DiffKD: maps that are made of a part of others, or of others with noise."""

import pytest
import slow_generated as slow
import torch
from small_tensors import numbers, tensor
from torch import nn

import objectives
from objectives.diffkd import DiffKd
from objectives.masked import MgdLast, ViTKD


def weights_of(module):
    return {name: value.detach().numpy() for name, value in module.state_dict().items()}


def passing_on(module):
    """Without the convolutions that make maps."""
    module.generator = nn.Identity()
    return module


def test_mgd_last_by_hand():
    # (1, 2) to (4, 6) of one channel is 9 + 16; without that channel 16 + 36.
    student, teacher = tensor(1, 2).view(1, 1, 1, 2), tensor(4, 6).view(1, 1, 1, 2)
    for masked, expected in ((0.0, 25), (1.0, 52)):
        module = passing_on(MgdLast(student, teacher, masked=masked)).double()
        assert module(student, teacher).item() == pytest.approx(expected)


@pytest.mark.parametrize("by_pixels", [False, True])
def test_mgd_last_makes_the_teachers_map_of_what_is_left(by_pixels):
    student, teacher = numbers(3, 6, 4, 4), numbers(3, 6, 4, 4, seed=1)
    module = MgdLast(student, teacher, masked=0.4, by_pixels=by_pixels).double()
    shape = (3, 1, 4, 4) if by_pixels else (3, 6, 1, 1)
    torch.manual_seed(3)
    kept = torch.rand(shape, dtype=torch.float64) >= 0.4
    assert kept.any()
    assert not kept.all()
    torch.manual_seed(3)
    value = module(student, teacher)
    expected = slow.mgd_last([student.numpy()], [teacher.numpy()], weights_of(module), kept.numpy())
    assert value.item() == pytest.approx(expected)
    torch.manual_seed(3)
    assert torch.equal(module(student, teacher), value)  # the same again, from the same seed
    assert not torch.equal(module(student, teacher), value)


def test_vitkd_by_hand():
    # Shallow: 2^2. Deep: both tokens are missing, so that 5 and 6 are compared with the trained 4: 0.3 / 1 (1 + 4).
    shallow, deep = tensor(1).view(1, 1, 1, 1), tensor(0, 9).view(1, 1, 1, 2)
    others = [tensor(3).view(1, 1, 1, 1), tensor(5, 6).view(1, 1, 1, 2)]
    module = passing_on(ViTKD([shallow, deep], others, masked=1.0, generation=0.3)).double()
    module.token.data.fill_(4)
    assert module([shallow, deep], others).item() == pytest.approx(4 + 0.3 * 5)


def test_vitkd_hides_as_many_tokens_of_each_sample_and_compares_them_alone():
    stages = [numbers(5, 3, 4, 4)], [numbers(5, 3, 4, 4, seed=1)]
    module = passing_on(ViTKD(*stages, masked=0.6)).double()
    torch.manual_seed(0)
    missing = module.missing(stages[0][0])
    assert missing.sum((1, 2, 3)).tolist() == [10] * 5  # 16 tokens, of which int(16 * 0.4) stay
    assert not missing[0].equal(missing[1])
    student = stages[0][0].requires_grad_()
    torch.manual_seed(0)
    value = module([student], stages[1])
    gap = stages[1][0].square() * missing  # to tokens of zeros
    assert value.item() == pytest.approx(0.1 * gap.sum().item() / 0.6 / 5)
    assert not torch.autograd.grad(value, student)[0].any()  # what stays is not compared, what is hidden not seen


def test_vitkd_counts_tokens_as_decimals_do():
    # 0.1 of 10 is one, though 10 (1 - 0.9) is 0.9999999999999998 in floating point.
    for tokens, masked, kept in ((10, 0.9, 1), (100, 0.9, 10), (10, 0.93, 0), (10, 0.5, 5)):
        x = torch.zeros(2, 1, 1, tokens)
        assert (~ViTKD([x, x], [x, x], masked=masked).missing(x)).sum((1, 2, 3)).tolist() == [kept] * 2


def test_diffkd_takes_the_noise_away_that_its_model_tells():
    # Song et al.: steps without chance lead back to the map, if the noise is told exactly at each of them.
    student, teacher = numbers(3, 4, 2, 2), numbers(3, 6, 2, 2, seed=1)
    module = DiffKd(student, teacher, steps=4).double()
    clean, noise = numbers(3, 3, 2, 2, seed=2), numbers(3, 3, 2, 2, seed=3)
    seen = []

    def oracle(x, times):
        signal = module.signal[times].view(-1, 1, 1, 1)
        seen.append(times.tolist())
        return (x - signal.sqrt() * clean) / (1 - signal).sqrt()

    module.denoiser.forward = oracle
    signal = module.signal[375]
    torch.testing.assert_close(module.denoised(signal.sqrt() * clean + (1 - signal).sqrt() * noise), clean)
    assert seen == [[375] * 3, [250] * 3, [125] * 3, [0] * 3]


def test_the_autoencoder_learns_from_its_own_error_alone():
    student, teacher = numbers(3, 4, 2, 2), numbers(3, 6, 2, 2, seed=1)
    module = DiffKd(student, teacher).double()
    parts = [*module.encoder.parameters(), *module.decoder.parameters()]
    torch.manual_seed(0)
    whole = torch.autograd.grad(module(student, teacher), parts)
    alone = torch.autograd.grad((module.decoder(module.encoder(teacher)) - teacher).square().mean(), parts)
    for one, other in zip(whole, alone, strict=True):
        torch.testing.assert_close(one, other)


def test_diffkd_draws_from_torch_and_compares_maps_of_equal_size():
    student, teacher = numbers(3, 4, 4, 4).requires_grad_(), numbers(3, 6, 2, 2, seed=1)
    module = DiffKd(student, teacher, latent=5).double()
    values = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        values.append(module(student, teacher))
    assert torch.equal(values[0], values[1])
    assert not torch.equal(values[0], values[2])
    assert torch.autograd.grad(values[0], student)[0].any()
    shares = module.adapter(numbers(8, 5, 2, 2))
    assert shares.shape == (8, 1, 1, 1)
    assert ((shares > 0) & (shares < 1)).all()


def test_numbers_that_make_no_sense_are_refused():
    for name, option, value in (("diffkd", "steps", 501), ("vitkd", "masked", 0.0), ("wkd_f", "grid", 0)):
        assert not objectives.get(name).options[option].range.has(value)
