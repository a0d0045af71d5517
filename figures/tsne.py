"""t-SNE of what the classifier sees: each validation image a dot, coloured by its class.

python -m figures.tsne runs/x [--teachers] [--images 2000] [--output tsne.png]

With more than 20 classes present, those of CIFAR-100 and of ImageNet are coloured by superclass; of other data 20
classes have colours, and the rest is gray.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from sklearn.manifold import TSNE

from dataset.class_names import OTHER, names_for_people, superclasses
from figures.outputs import NetworkOutputs, outputs_of_run
from utils.console import exit_with_its_code, png
from utils.errors import UsageError
from utils.files import check_output
from utils.plots import plt, save
from utils.text import printable

_NAMED = 20  # classes that colours and a legend can tell apart
_TWENTY = [*matplotlib.color_sequences["tab20"][:14], "black", "lime", *matplotlib.color_sequences["tab20"][16:]]
_REST = (0.85, 0.85, 0.85)  # colour of those without one


def draw(networks: list[NetworkOutputs], output: Path) -> None:
    """One panel a network; a legend of the classes present, of their superclasses, or of some of the classes."""
    labels = networks[0].labels  # the same images for all
    groups = _groups(networks[0].classes, labels)
    beside = {"loc": "center left", "bbox_to_anchor": (1, 0.5), "frameon": False}
    figure, panels = plt.subplots(
        1, len(networks), figsize=(6 * len(networks), 5.5), squeeze=False, layout="constrained"
    )
    colors = _TWENTY if len(groups) > 10 else matplotlib.color_sequences["tab10"]
    for axes, outputs in zip(panels[0], networks):
        places = TSNE(init="pca", perplexity=min(30, (len(labels) - 1) / 3), random_state=0).fit_transform(
            outputs.pooled
        )
        others = ~np.isin(labels, np.concatenate([*groups.values()]))
        if others.any():
            axes.scatter(*places[others].T, s=6, color=_REST, label="others", linewidths=0)
        for (name, members), color in zip(groups.items(), colors):
            axes.scatter(*places[np.isin(labels, members)].T, s=6, color=color, label=printable(name), linewidths=0)
        title = f"{outputs.name}: {len(labels)} images"
        if outputs.logits.shape[1]:
            title += f", top-1 {100 * (outputs.logits.argmax(1) == labels).mean():.1f}"
        axes.set(title=title, xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
    panels[0][-1].legend(fontsize="small", markerscale=2, **beside)
    save(figure, output)


def _groups(classes: Sequence[str], labels: np.ndarray) -> dict[str, np.ndarray]:
    """Labels of one colour, by name: a class each, or a superclass where they are too many.

    Of many classes without superclasses some that are spread over the labels have a colour; of superclasses all but
    `other`.
    """
    present = np.unique(labels)
    names = names_for_people(classes)
    if len(present) > _NAMED and (above := superclasses([classes[label] for label in present])) is not None:
        mine = np.array(above)
        return {name: present[mine == name] for name in dict.fromkeys(above) if name != OTHER}
    chosen = np.linspace(0, len(present) - 1, min(len(present), _NAMED)).round().astype(int)
    return {names[label]: np.array([label]) for label in present[chosen]}


@exit_with_its_code
def main() -> None:
    """Draw the run on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="run folder")
    parser.add_argument("--teachers", action="store_true", help="a panel for each teacher too")
    parser.add_argument("--images", type=int, default=2000, help="how many, spread over the split (default: 2000)")
    parser.add_argument("--output", type=png, help="PNG to write (default: tsne.png in the run)")
    options = parser.parse_args()
    if options.images < 10:
        raise UsageError(f"--images {options.images}: t-SNE needs 10 or more")
    output = options.output or options.run / "tsne.png"
    check_output(output)
    draw(outputs_of_run(options.run, teachers=options.teachers, images=options.images), output)
    print(output)


if __name__ == "__main__":
    main()
