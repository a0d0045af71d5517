"""Result files of classification as VOC's devkit has them: a file a class, a line "image score" an image.

    python -m evaluation.voc_files FOLDER SPLIT [--average_precision voc]

scores those in FOLDER by the labels of a packed split. N images, C classes.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from urllib.parse import quote

import numpy as np

from dataset.store.reader import ShardReader
from evaluation.average_precision import KINDS, average_precision
from utils.console import exit_with_its_code
from utils.errors import DataError, UsageError
from utils.files import write_atomically
from utils.text import printable


def image_ids(keys: Sequence[str]) -> list[str]:
    """What images are called in result files: their file names without ending, or the whole keys where two share one.

    Args:
        keys: paths below the folder of the split.
    """
    stems = [PurePosixPath(key).stem for key in keys]
    return stems if len(set(stems)) == len(stems) else list(keys)


def result_file(folder: Path, name: str) -> Path:
    """Where in ``folder`` the scores of the class ``name`` stand; what no file name may hold is spelled as in a URL."""
    return folder / f"comp1_cls_test_{quote(os.fsencode(name), safe='')}.txt"


def write_results(folder: Path, classes: Sequence[str], ids: Sequence[str], scores: np.ndarray) -> None:
    """Write float32 ``scores`` [N, C] of the images ``ids`` [N], with all their digits.

    Raises:
        DataError: the disk is full or cannot be written.
    """
    folder.mkdir(exist_ok=True)
    for number, column in enumerate(scores.T):
        lines = [f"{name} {score:.9g}\n" for name, score in zip(ids, column.tolist(), strict=True)]
        write_atomically(result_file(folder, classes[number]), os.fsencode("".join(lines)))


def read_results(folder: Path, classes: Sequence[str], ids: Sequence[str]) -> np.ndarray:
    """The scores of the images ``ids`` [N] in result files, float64 [N, C]; those of other images are passed over.

    Raises:
        DataError: a file is missing or damaged, or lacks an image.
    """
    scores = np.empty((len(ids), len(classes)))
    for number, path in enumerate(result_file(folder, name) for name in classes):
        try:
            pairs = (line.rsplit(None, 1) for line in os.fsdecode(path.read_bytes()).split("\n") if line)
            known = {name: float(score) for name, score in pairs}
            scores[:, number] = [known[name] for name in ids]
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror}") from None
        except ValueError:
            raise DataError(f"{path}: a line is not an image and its score: write the file again") from None
        except KeyError as error:
            raise DataError(f"{path} has no score of the image {error}: write the file again") from None
    return scores


@exit_with_its_code
def main() -> None:
    """Print the average precision of each class, and the mean."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="holds comp1_cls_test_CLASS.txt")
    parser.add_argument("split", type=Path, help="folder of the packed split")
    parser.add_argument("--average_precision", choices=KINDS, default="voc", help="default: voc")
    flags = parser.parse_args()
    reader = ShardReader(flags.split)
    if reader.labels.ndim != 2:
        raise UsageError(f"{flags.split} has one class an image; result files are of several")
    scores = read_results(flags.folder, reader.classes, image_ids(reader.keys()))
    precisions = average_precision(scores, reader.labels, flags.average_precision)
    for name, precision in zip(reader.classes, precisions):
        print(f"{printable(name)} {100 * precision:.3f}")
    print(f"mean of {np.isfinite(precisions).sum()} classes {100 * np.nanmean(precisions):.3f}")


if __name__ == "__main__":
    main()
