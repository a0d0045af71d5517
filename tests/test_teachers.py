"""Teachers: live ones, ensembles, and whatever else answers for a view of a batch."""

import dataclasses

import pytest
import torch
from torch import nn

from dataset.feed.batch import Batch
from models.outputs import IMAGENET, Normalization, Outputs
from models.zoo import Network, NetworkConfig
from teachers import Ensemble, Live, TeacherConfig, Views, averaged, build_teacher, teacher_of
from utils.errors import DataError, UsageError


class Body(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.dropout, self.fc = (
            nn.Conv2d(3, 4, 3),
            nn.BatchNorm2d(4),
            nn.Dropout(),
            nn.Linear(4, 5),
        )

    def forward(self, images):
        pooled = self.norm(self.conv(images)).relu().mean((2, 3))
        return Outputs(self.fc(self.dropout(pooled)), {"pooled": pooled})


def network(seed, normalization=IMAGENET):
    torch.manual_seed(seed)
    return Network(Body(), normalization, 5, ["pooled"])


def batch(size=6):
    generator = torch.Generator().manual_seed(1)
    weak, strong = torch.randint(0, 256, (2, size, 3, 8, 8), dtype=torch.uint8, generator=generator)
    index = torch.arange(10, 10 + size)
    return Batch({"weak": weak, "strong": strong}, torch.full((size, 2), 8), {"labels": index % 5}, index, epoch=3)


NOBODY = Outputs(torch.zeros(6, 5))


def test_a_live_teacher_sees_the_view_it_is_asked_about_frozen_and_in_eval_mode():
    live, given = Live(network(0)).train(), batch()
    for view, images in given.images.items():
        outputs = live(Views(given), view, NOBODY)
        assert torch.equal(outputs.logits, live.network.eval().predict(images).logits)
        assert not outputs.logits.requires_grad
        assert [*outputs.features] == ["pooled"]
    assert not any(parameter.requires_grad for parameter in live.parameters())
    assert not any(module.training for module in live.modules())


def test_batch_statistics_are_those_of_each_batch_and_leave_its_own_alone():
    live, given = Live(network(0), batch_statistics=True).train(), batch()
    norm, before = live.network.body.norm, live.network.body.norm.running_mean.clone()
    assert [module for module in live.modules() if module.training] == [norm]  # no dropout
    seen = []
    norm.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    live(Views(given), "weak", NOBODY)
    torch.testing.assert_close(seen[0].mean((0, 2, 3)), torch.zeros(4), atol=1e-6, rtol=0)
    assert torch.equal(norm.running_mean, before)
    live.eval()(Views(given), "weak", NOBODY)
    assert seen[1].mean((0, 2, 3)).abs().min() > 1e-3


def test_images_are_normalised_once_for_all_that_share_a_normalisation(monkeypatch):
    other = Normalization((0.5,) * 3, (0.5,) * 3)
    student, *teachers = network(0), Live(network(1)), Live(network(2, other)), Live(network(3))
    views, calls = Views(batch()), []
    normalize = Network.normalize
    monkeypatch.setattr(Network, "normalize", lambda net, *given: calls.append(net) or normalize(net, *given))
    for view in ("weak", "strong"):
        given = views.through(student, view)
        for teacher in teachers:
            teacher(views, view, given)
    assert [net.normalization for net in calls] == [IMAGENET, other] * 2


class Stored:
    """A teacher without a network: it looks its logits up, by epoch and sample."""

    places, is_shared = None, True

    def __init__(self):
        self.asked = 0

    def __call__(self, views, view, student):
        self.asked += 1
        numbers = views.batch.epoch * 100 + views.batch.index
        return Outputs(torch.stack([numbers * share for share in (0.0, 0.01, 0.02, 0.03, 0.04)], 1))


def test_an_ensemble_averages_probabilities_of_any_teachers_and_asks_each_once():
    stored, live, views = Stored(), Live(network(1)), Views(batch())
    both = Ensemble([stored, live])(views, "weak", NOBODY).logits
    each = [views.outputs_of(one, "weak", NOBODY).logits for one in (stored, live)]
    torch.testing.assert_close(both.exp(), (each[0].softmax(1) + each[1].softmax(1)) / 2)
    assert torch.equal(both, averaged(each))
    assert stored.asked == 1
    views.outputs_of(stored, "strong", NOBODY)
    assert stored.asked == 2


def test_average_of_extreme_logits_is_finite():
    logits = [torch.tensor([[1e4, -1e4]]), torch.tensor([[-1e4, 1e4]])]
    torch.testing.assert_close(averaged(logits).exp(), torch.full((1, 2), 0.5))
    torch.testing.assert_close(averaged(logits, competing=False), torch.zeros(1, 2))  # where a sigmoid rounds to 1


def test_the_settings_of_a_network_serve_for_a_teacher():
    plain = NetworkConfig("resnet18", "w.pth", taps={"stage1": "layer1"})
    config = teacher_of(plain)
    assert dataclasses.asdict(config) == {
        **dataclasses.asdict(TeacherConfig(plain.name)),
        **dataclasses.asdict(plain),
    }
    own = TeacherConfig("resnet18", expect=20.0)
    assert teacher_of(own) is own
    with pytest.raises(dataclasses.FrozenInstanceError):
        own.expect = 3


def test_what_is_wrong_with_a_teachers_weights_names_the_teacher(tmp_path):
    config = TeacherConfig("cifar_resnet8", str(tmp_path / "gone.pth"))
    with pytest.raises(UsageError, match=r"^teachers\.large: .*gone\.pth: no such file"):
        build_teacher(config, ["a", "b"], key="teachers.large")
    (tmp_path / "gone.pth").write_bytes(b"")
    with pytest.raises((UsageError, DataError), match=r"^teachers\.large: .*gone\.pth"):
        build_teacher(config, ["a", "b"], key="teachers.large")
