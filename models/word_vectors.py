"""Word vectors of a file, a row for each class. Nothing that a file holds is ever run. K classes, V dimensions."""

from __future__ import annotations

import io
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from utils.errors import DataError, UsageError
from utils.text import counted, first_few, printable

_KINDS = ".npy, .npz, .pkl, or .txt as GloVe writes it"


def read_vectors(path: Path, num_classes: int, classes: tuple[str, ...] = ()) -> Tensor:
    """The vectors of the classes, [K, V] in float32.

    Args:
        path: an array [K, V] in a .npy, .npz or .pkl file, in the order of the classes; or a text file with a word and
            its numbers in each line, as GloVe has it.
        num_classes: K.
        classes: their names, in order, by which a text file is read: the mean of the vectors of a name's words, in
            lower case. Without names its lines are those of the classes, in order.

    Raises:
        UsageError: the file cannot be read, holds something else, or lacks words.
        DataError: it is damaged.
    """
    try:
        vectors = _READERS[path.suffix](path, num_classes, classes)
    except KeyError:
        raise UsageError(f"{path}: vectors stand in {_KINDS}") from None
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None
    if vectors.ndim != 2 or vectors.dtype.kind not in "fiu":
        shape = " x ".join(map(str, vectors.shape))
        raise UsageError(f"{path}: an array of {vectors.dtype}, {shape or 'a scalar'}; it must be numbers, K x V")
    if len(vectors) != num_classes:
        rows = f"{counted(len(vectors), 'row')}, for {counted(num_classes, 'class')}"
        raise UsageError(f"{path} has {rows}; a text file of words and their vectors is read by name")
    with np.errstate(over="ignore"):
        vectors = vectors.astype(np.float32)
    if not np.isfinite(vectors).all():
        raise DataError(f"{path}: not all numbers are finite in float32; write it again")
    return torch.from_numpy(vectors)


def _array(path: Path, _num_classes: int, _classes: tuple[str, ...]) -> np.ndarray:
    try:
        with path.open("rb") as file:
            loaded = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return loaded
            if len(loaded.files) == 1:
                return loaded[loaded.files[0]]
    except OSError as error:
        if error.strerror:
            raise
        raise DataError(f"{path} is damaged ({error}): fetch or write it again") from None
    except Exception as error:  # of NumPy and of zip archives
        if "allow_pickle" in str(error):
            raise UsageError(f"{path} holds Python objects, which may run code; save an array of numbers") from None
        raise DataError(f"{path} is damaged ({error}): fetch or write it again") from None
    raise UsageError(f"{path} holds {first_few(loaded.files) or 'nothing'}; save one array alone")


def _text(path: Path, num_classes: int, classes: tuple[str, ...]) -> np.ndarray:
    if not classes:
        return np.stack(list(_lines(path, lambda words, _: len(words) > num_classes).values()))
    names = [_words(name) for name in classes]
    if nameless := [name for name, words in zip(classes, names) if not words]:
        raise UsageError(f"{path}: the class {printable(nameless[0])} has no word to be looked up")
    wanted = {word for words in names for word in words}
    found = _lines(path, lambda words, word: words.keys() >= wanted, wanted)
    if missing := [word for word in dict.fromkeys(word for words in names for word in words) if word not in found]:
        where = [name for name, words in zip(classes, names) if missing[0] in words]
        raise UsageError(
            f"{path} has no vectors for {first_few(missing)}, of the class {printable(where[0])}: add lines for them"
        )
    return np.stack([np.mean([found[word] for word in words], 0) for words in names])


def _lines(path: Path, enough: Callable[[dict[str, Any], str], bool], wanted: set[str] | None = None) -> dict[str, Any]:
    """Vectors by word: of those that are ``wanted``, or of all, until there are ``enough``."""
    found: dict[str, np.ndarray] = {}
    length = 0
    with path.open(encoding="utf-8", errors="surrogateescape", newline="\n") as file:
        for number, line in enumerate(file, 1):
            parts = line.split()
            length = length or len(parts) - 1
            if length < 1 or len(parts) <= length:
                raise DataError(f"{path}: line {number} has no word and {length or 'some'} numbers, as the first has")
            word = " ".join(parts[:-length])  # some of GloVe's hold spaces
            if word in found or (wanted is not None and word not in wanted):
                continue
            try:
                found[word] = np.array(parts[-length:], np.float64)
            except ValueError:
                raise DataError(f"{path}: line {number} has something else than numbers behind its word") from None
            if enough(found, word):
                break
    if not found and wanted is None:
        raise UsageError(f"{path} is empty")
    return found


def _words(name: str) -> list[str]:
    """The words of a class name in lower case: `traffic_light` has two."""
    return re.findall(r"[^\W_]+", name.lower())


def _pickled(path: Path, _num_classes: int, _classes: tuple[str, ...]) -> np.ndarray:
    try:
        vectors = _Arrays(io.BytesIO(path.read_bytes()), encoding="latin1").load()
    except _NoArrayError as error:
        raise UsageError(
            f"{path}: not a file of vectors that can be read safely: it holds an object of {error}, which may run "
            f"code. If you trust it, save its array with numpy.save({str(path.with_suffix('.npy'))!r}, array)"
        ) from None
    except Exception as error:  # a damaged pickle may raise any
        raise DataError(f"{path} is damaged ({str(error) or type(error).__name__}): fetch or write it again") from None
    try:
        return np.asarray(vectors) if isinstance(vectors, np.ndarray | list) else np.empty((), object)
    except ValueError:  # rows of several lengths
        return np.empty((), object)


class _NoArrayError(Exception):
    """A pickle holds something else than arrays."""


class _Arrays(pickle.Unpickler):
    """Reads arrays and plain values; whatever else a pickle names is refused before it is called."""

    def find_class(self, module: str, name: str) -> Any:
        """The harmless thing of this name.

        Raises:
            _NoArrayError: it is none.
        """
        known = _HARMLESS.get((module.replace("numpy._core", "numpy.core"), name))
        if known is None:
            raise _NoArrayError(f"{module}.{name}")
        return known


def _encoded(text: str, _encoding: str) -> bytes:
    """Bytes, as pickles for Python 2 spell them."""
    return text.encode("latin1")


_core = np.zeros(()).__reduce__()[0]
_HARMLESS: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _core,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): _encoded,
}
if hasattr(np, "_core"):
    _HARMLESS["numpy.core.numeric", "_frombuffer"] = np._core.numeric._frombuffer

_READERS = {".npy": _array, ".npz": _array, ".txt": _text, ".pkl": _pickled}
