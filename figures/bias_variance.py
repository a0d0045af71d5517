"""Bias and variance of students over runs of one config with different seeds: a bar a group of runs.

python -m figures.bias_variance alone=runs/a0,runs/a1 distilled=runs/b0,runs/b1 [--output bias_variance.png]

Of a validation image of class y, let p be the probabilities that a student gives it and E the mean over the students:

    p_bar    = exp(E log p) / Z, where Z sums exp(E log p) over the classes
    bias     = KL(y || p_bar) = -log p_bar(y)
    variance = E KL(p_bar || p) = -log Z
    bias + variance = E[-log p(y)], the expected cross-entropy

Heskes, Neural Computation 1998; Zhou et al., ICLR 2021, arXiv 2102.00650, section 3. There E is over training sets;
here it is over seeds, which draw other initial weights and batches from the same images. With R runs about 1 / R of the
variance counts as bias: compare groups of as many runs.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from figures.outputs import NetworkOutputs, outputs_of_run
from utils.console import exit_with_its_code, png
from utils.errors import UsageError
from utils.files import check_output
from utils.plots import plt, save


@dataclass(frozen=True)
class Group:
    """Runs of one config with other seeds, and their measures; means over the images, in nats."""

    name: str
    runs: int
    bias: float
    variance: float


def measure(name: str, students: Sequence[NetworkOutputs]) -> Group:
    """Bias and variance of the students of a group."""
    logits = [torch.from_numpy(student.logits) for student in students]
    bias, variance = bias_and_variance(logits, torch.from_numpy(students[0].labels))
    return Group(name, len(students), bias.mean().item(), variance.mean().item())


def bias_and_variance(logits: Sequence[Tensor], labels: Tensor) -> tuple[Tensor, Tensor]:
    """The bias and the variance of each image, float64 [N].

    Args:
        logits: of each run, [N, K].
        labels: int64 [N].
    """
    mean = torch.zeros(logits[0].shape, dtype=torch.float64)  # E log p
    for run in logits:
        mean += run.double().log_softmax(1) / len(logits)
    log_z = mean.logsumexp(1)  # [N]
    return log_z - mean.gather(1, labels[:, None])[:, 0], -log_z


def draw(groups: Sequence[Group], output: Path) -> None:
    """A bar a group: its bias, and its variance on top."""
    figure, axes = plt.subplots(figsize=(8, 1.3 + 0.6 * len(groups)), layout="constrained")
    bias, variance = (np.array([getattr(group, key) for group in groups]) for key in ("bias", "variance"))
    names = [
        f"{group.name}, {group.runs} runs\n{group.bias:.3f} + {group.variance:.3f} = {group.bias + group.variance:.3f}"
        for group in groups
    ]
    axes.barh(names, bias, height=0.6, color="tab:blue", label="bias")
    axes.barh(names, variance, left=bias, height=0.6, color="tab:orange", label="variance")
    axes.set(xlabel="bias + variance = expected cross-entropy (nats)")
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper center", ncols=2, frameon=False)
    save(figure, output)


@exit_with_its_code
def main() -> None:
    """Draw the groups on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "groups", nargs="+", metavar="NAME=RUN,RUN[,...]", help="run folders of one config, other seeds"
    )
    parser.add_argument("--output", type=png, help="PNG to write (default: bias_variance.png beside the first run)")
    options = parser.parse_args()
    groups = [parse_group(text) for text in options.groups]
    output = options.output or groups[0][1][0].parent / "bias_variance.png"
    check_output(output)
    outputs = {run: outputs_of_run(run, teachers=False)[0] for _, runs in groups for run in runs}
    check_comparable(outputs)
    measured = [measure(name, [outputs[run] for run in runs]) for name, runs in groups]
    draw(measured, output)
    for group in measured:
        sums = f"bias {group.bias:.4f} + variance {group.variance:.4f} = {group.bias + group.variance:.4f}"
        print(f"{group.name}: {sums}, {group.runs} runs")
    print(output)


def parse_group(text: str) -> tuple[str, list[Path]]:
    """Name and run folders out of NAME=RUN,RUN."""
    name, _, folders = text.partition("=")
    runs = list(dict.fromkeys(Path(folder) for folder in folders.split(",") if folder))
    if not name or len(runs) < 2:
        raise UsageError(
            f"{text}: a group is NAME=RUN,RUN with at least two runs; train the config again with another "
            "train_params.seed and name"
        )
    return name, runs


def check_comparable(outputs: dict[Path, NetworkOutputs]) -> None:
    """UsageError unless all students give the same classes to the same images."""
    (first, one), *others = outputs.items()
    for run, other in others:
        if one.classes != other.classes or one.logits.shape[1] != other.logits.shape[1]:
            raise UsageError(f"{run} has other classes than {first}: bias and variance need runs on the same data")
        if not np.array_equal(one.labels, other.labels):
            raise UsageError(f"{run} has other validation images than {first}: bias and variance need the same ones")


if __name__ == "__main__":
    main()
