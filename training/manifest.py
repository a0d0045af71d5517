"""What a procedure's runs have come to: one JSON file beside their folders, for people and for configs.

::

    {"runs": {"part0": {"folder": "runs/part0", "state": "trained", "classes": ["cat", ...],
                        "weights": "runs/part0/student.safetensors", "sha256": "...", "scores": {"mAP": 81.2, ...}}}}

States are waiting, training, trained and failed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from training.run_folder import RunFolder
from utils.errors import DataError
from utils.files import lock, make_folder, parsed, sha256, write_atomically


class Manifest:
    """The manifest at ``path``; several processes may write it.

    Args:
        path: of the file.
        folders: those of the runs, by name; others in the file are forgotten.
    """

    def __init__(self, path: Path, folders: Mapping[str, Path]) -> None:
        self.path, self._folders = path, folders

    def note(self, name: str, state: str) -> None:
        """Write down what a run has come to, and of a trained one its scores, classes and weights."""
        make_folder(self.path.parent, "train_params.output_path")
        with lock(self.path.with_suffix(".lock"), wait=True):
            before = read_manifest(self.path) if self.path.exists() else {}
            rows = {one: before.get(one, _row(folder, "waiting")) for one, folder in self._folders.items()}
            rows[name] = _row(self._folders[name], state)
            write_atomically(self.path, json.dumps({"runs": rows}, indent=1).encode())


def read_manifest(path: Path) -> dict[str, dict[str, Any]]:
    """The rows of a manifest, by run.

    Raises:
        DataError: it is damaged, or none.
    """
    try:
        runs = parsed(path.read_bytes())["runs"]
        for name, row in runs.items():
            texts = [row["folder"], row["state"], row.get("weights", ""), *row.get("classes", [])]
            if not all(isinstance(text, str) for text in texts) or not isinstance(row.get("classes", []), list):
                raise TypeError(f"the row of {name} is not as it was written")
        return runs
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}; name the .manifest.json beside the run folders") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path} is no manifest of runs, or damaged ({error}): delete it, and train again") from None


def _row(folder: Path, state: str) -> dict[str, Any]:
    row: dict[str, Any] = {"folder": str(folder), "state": state}
    weights, facts = folder / "student.safetensors", folder / "facts.json"
    if state == "trained" and weights.exists() and facts.exists():
        row |= {
            "classes": parsed(facts.read_bytes())["data"]["train"]["classes"],
            "weights": str(weights),
            "sha256": sha256(weights),
            "scores": RunFolder(folder).best_scores(),
        }
    return row
