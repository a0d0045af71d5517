"""What a teacher's soft labels mean for each training image: its regularisation samples, and WSLD's weights.

python -m figures.regularization runs/x [--output regularization.png]

With z the student's logit of the true class, s_T and t_T the probabilities that student and teacher give that class at
temperature T, L_ce the cross-entropy with the label, and L_kd = T^2 CE(softmax(z_t / T), softmax(z_s / T)):

    a = dL_ce / dz          = s_1 - 1                      the part that lowers the bias
    b = d(L_kd - L_ce) / dz = T (s_T - t_T) - (s_1 - 1)    the part that lowers the variance

A regularisation sample is one where the second outweighs the first and points the other way, b > |a|: there s_T > t_T,
the true class is pulled down in sum, and the bias grows while the variance falls. The broken line adds those with
b < -|a|, where both pull it up. At T = 1 there are none of these, and regularisation samples are where the student is
ahead of the teacher: where the weight of WSLD, 1 - exp(-L_ce of the student / L_ce of the teacher), is below 1 - 1/e.
Zhou et al., ICLR 2021, arXiv 2102.00650, sections 3 and 4.

As in the paper the images are those of training; here without augmentation, up to 50,000 spread over the split, through
the best student.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from figures.outputs import NetworkOutputs, outputs_of_run
from objectives.logits import wsld_weights
from utils.console import exit_with_its_code, png
from utils.errors import UsageError
from utils.files import check_output
from utils.plots import plt, save

_IMAGES = 50_000  # all of CIFAR's
_TEMPERATURES = range(1, 11)
_LEVEL = 1 - np.exp(-1)  # the weight where student and teacher have the same loss


@dataclass(frozen=True)
class Effect:
    """Of one teacher on N training images."""

    teacher: str
    shares: np.ndarray  # of images with b > |a|, and with |b| > |a|, by temperature, [_TEMPERATURES, 2]
    weights: np.ndarray  # of WSLD, [N]


def measure(student: NetworkOutputs, teacher: NetworkOutputs) -> Effect:
    """Regularisation samples and weights.

    Raises:
        UsageError: the two do not have the same outputs.
    """
    if student.logits.shape != teacher.logits.shape:
        raise UsageError(
            f"{teacher.name} has {teacher.logits.shape[1]} outputs and the student {student.logits.shape[1]}: "
            "soft labels need a teacher of the same classes"
        )
    z_s, z_t = torch.from_numpy(student.logits).double(), torch.from_numpy(teacher.logits).double()
    labels = torch.from_numpy(student.labels)
    shares = []
    for temperature in _TEMPERATURES:
        a, b = gradients(z_s, z_t, labels, temperature)
        shares.append([(b > a.abs()).double().mean().item(), (b.abs() > a.abs()).double().mean().item()])
    return Effect(teacher.name, np.array(shares), wsld_weights(z_s, z_t, labels).numpy())


def gradients(student: Tensor, teacher: Tensor, labels: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """The a and b of each image, [N].

    Args:
        student: logits [N, K].
        teacher: logits [N, K].
        labels: int64 [N].
        temperature: T.
    """
    a = -_others(student, labels)
    ahead = _others(teacher / temperature, labels) - _others(student / temperature, labels)  # s_T - t_T
    return a, temperature * ahead - a


def _others(logits: Tensor, labels: Tensor) -> Tensor:
    """Probability of all classes but the true one, which 1 - p would round to 0; [N, K] -> [N]."""
    others = logits.scatter(1, labels[:, None], -torch.inf)
    return (others.logsumexp(1) - logits.logsumexp(1)).exp()


def draw(effects: list[Effect], output: Path) -> None:
    """Left the share of regularisation samples by temperature, right the weights; a colour a teacher."""
    figure, (samples, weights) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    for effect in effects:
        growing, all_larger = 100 * effect.shares.T
        line = samples.plot(_TEMPERATURES, growing, marker=".", label=f"{effect.teacher}: b > |a|, the bias grows")
        samples.plot(_TEMPERATURES, all_larger, "--", color=line[0].get_color(), label=f"{effect.teacher}: |b| > |a|")
        each = np.full(len(effect.weights), 100 / len(effect.weights))
        weights.hist(effect.weights, bins=40, range=(0, 1), weights=each, alpha=0.6, label=effect.teacher)
    weights.axvline(_LEVEL, color="black", linestyle="--", linewidth=1, label="student level with teacher")
    samples.set(xlabel="temperature", ylabel="training images (%)", title="Regularisation samples")
    samples.set_ylim(0, 1.3 * samples.get_ylim()[1])  # space for the legend, as below
    weights.set(xlabel="weight", ylabel="training images (%)", title="Weights of WSLD", xlim=(0, 1))
    weights.margins(y=0.3)
    for axes in (samples, weights):
        axes.set_axisbelow(True)
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(fontsize="small")
    save(figure, output)


@exit_with_its_code
def main() -> None:
    """Draw the run on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="run folder of a distillation")
    parser.add_argument("--output", type=png, help="PNG to write (default: regularization.png in the run)")
    options = parser.parse_args()
    output = options.output or options.run / "regularization.png"
    check_output(output)
    student, *teachers = outputs_of_run(options.run, teachers=True, images=_IMAGES, split="train")
    if not teachers:
        raise UsageError(f"{options.run} has no teacher to compare with")
    effects = [measure(student, teacher) for teacher in teachers]
    draw(effects, output)
    print(f"{len(student.labels)} training images")
    for effect in effects:
        print(f"{effect.teacher}: regularisation samples, and all with |b| > |a|")
        for temperature, (growing, all_larger) in zip(_TEMPERATURES, 100 * effect.shares):
            print(f"    T = {temperature:2d}  {growing:5.1f} %  {all_larger:5.1f} %")
        low, middle, high = np.quantile(effect.weights, [0.25, 0.5, 0.75])
        mean = effect.weights.mean()
        print(f"{effect.teacher}: weights of WSLD, mean {mean:.3f}, quartiles {low:.3f} {middle:.3f} {high:.3f}")
    print(output)


if __name__ == "__main__":
    main()
