"""How far the student's mean logits of each class are from the teacher's: a class a row, an output a column.

python -m figures.correlation runs/x [--output correlation.png]

Rows and columns are the classes that have validation images. The diagonal, which is the largest everywhere, is left
out, and gray.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from dataset.class_names import names_for_people
from figures.outputs import NetworkOutputs, outputs_of_run
from utils.console import exit_with_its_code, png
from utils.errors import UsageError
from utils.files import check_output
from utils.plots import plt, save
from utils.text import printable

_COLORS = plt.get_cmap("magma_r").with_extremes(bad="lightgray")
_NAMED = 100  # classes that all have their names on the axes; of more some have
_INCHES = 0.12  # a class, where they have


def mean_logits(outputs: NetworkOutputs) -> np.ndarray:
    """Mean logits of the images of each of the P classes that have some, without the diagonal; [P, P]."""
    present, rows, images = np.unique(outputs.labels, return_inverse=True, return_counts=True)
    sums = np.zeros((len(present), len(present)))
    np.add.at(sums, rows, outputs.logits[:, present])
    means = sums / images[:, None]
    np.fill_diagonal(means, 0)
    return means


def draw(student: NetworkOutputs, teachers: list[NetworkOutputs], output: Path) -> list[tuple[str, float, float]]:
    """One heat map a teacher, with a common scale; returns each one's name, greatest and mean difference."""
    differences = [np.abs(mean_logits(student) - mean_logits(teacher)) for teacher in teachers]
    most = max(difference.max() for difference in differences)
    names = names_for_people([student.classes[label] for label in np.unique(student.labels)])
    side = max(5.0, _INCHES * min(len(names), _NAMED))
    wide = (side + 1) * len(teachers)
    figure, panels = plt.subplots(1, len(teachers), figsize=(wide, side), squeeze=False, layout="constrained")
    shown = range(0, len(names), -(-len(names) // _NAMED))
    ticks = shown, [printable(names[place]) for place in shown]
    for axes, teacher, difference in zip(panels[0], teachers, differences):
        diagonal = np.eye(len(difference), dtype=bool)
        image = axes.imshow(np.ma.array(difference, mask=diagonal), vmin=0, vmax=most, cmap=_COLORS)
        axes.set(title=f"student - {teacher.name}: mean {difference.mean():.3f}", xlabel="output", ylabel="true class")
        size = 10 if len(names) <= 20 else 6.5
        axes.set_xticks(*ticks, rotation=90, fontsize=size)
        axes.set_yticks(*ticks, fontsize=size)
    figure.colorbar(image, ax=panels[0], label="|difference of mean logits|", shrink=min(1, 5 / side))
    save(figure, output)
    return [(t.name, float(d.max()), float(d.mean())) for t, d in zip(teachers, differences)]


@exit_with_its_code
def main() -> None:
    """Draw the run on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="run folder of a distillation")
    parser.add_argument("--output", type=png, help="PNG to write (default: correlation.png in the run)")
    options = parser.parse_args()
    output = options.output or options.run / "correlation.png"
    check_output(output)
    student, *teachers = outputs_of_run(options.run, teachers=True)
    if not teachers:
        raise UsageError(f"{options.run} has no teacher to compare with")
    if of_features := [one.name for one in (student, *teachers) if not one.logits.shape[1]]:
        raise UsageError(f"{options.run}: {', '.join(of_features)} has no classifier, and so no logits to compare")
    for name, most, mean in draw(student, teachers, output):
        print(f"{name}: greatest difference {most:.3f}, mean {mean:.3f}")
    print(output)


if __name__ == "__main__":
    main()
