"""t-SNE of what the classifier sees: each validation image a dot, coloured by its class.

python -m figures.tsne runs/x [--teachers] [--images 2000] [--output tsne.png]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import numpy as np
from matplotlib import pyplot as plt
from sklearn.manifold import TSNE

from figures.outputs import NetworkOutputs, outputs_of_run
from utils.console import exit_with_its_code, png
from utils.errors import UsageError

_NAMED = 20  # classes that a legend can tell apart


def draw(networks: list[NetworkOutputs], output: Path) -> None:
    """One panel a network."""
    figure, panels = plt.subplots(
        1, len(networks), figsize=(6 * len(networks), 5.5), squeeze=False, layout="constrained"
    )
    for axes, outputs in zip(panels[0], networks):
        colors = plt.get_cmap("tab20" if len(outputs.classes) <= _NAMED else "nipy_spectral")
        places = TSNE(init="pca", perplexity=min(30, (len(outputs.labels) - 1) / 3), random_state=0).fit_transform(
            outputs.pooled
        )
        for label in np.unique(outputs.labels):
            mine = places[outputs.labels == label]
            share = label if len(outputs.classes) <= _NAMED else label / max(1, len(outputs.classes) - 1)
            axes.scatter(*mine.T, s=6, color=colors(share), label=outputs.classes[label], linewidths=0)
        top1 = 100 * (outputs.logits.argmax(1) == outputs.labels).mean()
        axes.set(title=f"{outputs.name}: {len(outputs.labels)} images, top-1 {top1:.1f}", xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
    if len(networks[0].classes) <= _NAMED:
        panels[0][-1].legend(fontsize="small", markerscale=2, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    figure.savefig(output, dpi=120)
    plt.close(figure)


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
    draw(outputs_of_run(options.run, teachers=options.teachers, images=options.images), output)
    print(output)


if __name__ == "__main__":
    main()
