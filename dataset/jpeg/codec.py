"""The compiled codec, dataset/jpeg/src, by ctypes: any Python serves, and the functions of the table release the GIL.

`library` has them, and codec.h says what they take. Pointers are `readable` of memory that is only read, `writable` of
memory that is written, or `bytes` themselves; no function keeps one. Each argument takes ctypes 0.1 us: many numbers go
packed into `bytes`.
"""

from __future__ import annotations

import ctypes
from ctypes import c_char_p, c_int, c_int64, c_void_p, py_object
from pathlib import Path
from typing import Any

import numpy as np

from dataset.jpeg.sources import FAST, LIBRARY, SOURCES, digest
from utils.errors import UsageError

# Of each function: what it returns and what it takes.
_FUNCTIONS: dict[str, tuple[Any, list[Any]]] = {
    "is_fast": (c_int, []),
    "next_segment": (None, [c_void_p, c_int64, c_int64, c_void_p]),
    "parse_header": (None, [c_void_p, c_int64, c_void_p]),
    "padded_window": (None, [c_void_p, c_void_p, c_void_p]),
    "optimal_code": (c_int64, [c_void_p, c_void_p, c_void_p]),
    "pack_frame": (c_int64, [c_void_p, c_int64, c_void_p]),
    "pack_walk": (c_int64, [c_void_p, c_int64, c_void_p, c_int64, c_void_p, c_void_p, c_void_p]),
    "pack_write": (c_int64, [c_void_p, c_int64, c_void_p, c_int64, c_void_p, c_int64, c_void_p, c_void_p]),
    "pack_compare": (c_int64, [c_void_p, c_int64, c_void_p, c_int64, c_int64, c_void_p, c_int64, c_void_p]),
    "decode_window": (c_int64, [c_void_p, c_int64, c_void_p, c_void_p]),
    "show_views": (None, [c_void_p, c_int64, c_int64, c_void_p, c_void_p, c_void_p]),
    "window_intervals": (c_int64, [c_void_p, c_int64, c_void_p, c_void_p, c_int64]),
    "triangle_weights": (None, [c_int64, c_int64, c_int64, c_int64, c_int64, c_void_p, c_void_p]),
    "combine_rows": (None, [c_void_p, c_int64, c_int64, c_int64, c_void_p, c_void_p, c_void_p]),
}


def readable(data: bytes | memoryview | np.ndarray) -> bytes | int:
    """A pointer to ``data``, which is contiguous and which the caller holds; 0.3 us, none for bytes.

    Raises:
        BufferError, ValueError: it is not contiguous.
    """
    return data if type(data) is bytes else _with_gil.readable(data)


def address(data: bytes | memoryview | np.ndarray) -> int:
    """As `readable`, as a number."""
    return _with_gil.readable(data)


def writable(data: np.ndarray) -> int:
    """As `readable`, to be written to.

    Raises:
        BufferError, ValueError: it is not contiguous, or read-only.
    """
    return _with_gil.writable(data)


def load(path: Path) -> ctypes.CDLL:
    """The library that was built of the sources.

    Raises:
        UsageError: it is missing, is that of other sources, or was built for another machine.
    """
    build = (
        f"build it in {path.parents[2]}: type `make setup` or, in an environment of your own, "
        "`pip install --no-deps --editable .`"
    )
    if not path.exists():
        raise UsageError(f"{path}: the JPEG codec is missing; {build}")
    try:
        loaded = ctypes.CDLL(str(path))
    except OSError as error:
        raise UsageError(f"{path}: the JPEG codec cannot be loaded on this machine ({error}); {build}") from None
    loaded.codec_sources.restype = c_char_p
    if loaded.codec_sources().decode() != digest():
        raise UsageError(f"{path}: the JPEG codec is not that of the sources in {SOURCES}; {build}")
    for name, (returned, taken) in _FUNCTIONS.items():
        function = getattr(loaded, name)
        function.restype, function.argtypes = returned, taken
    return loaded


library = load(LIBRARY)
if library.is_fast():
    library = load(FAST)
library.use_buffers(ctypes.pythonapi.PyObject_GetBuffer, ctypes.pythonapi.PyBuffer_Release)
_with_gil = ctypes.PyDLL(library._name)
for _function in (_with_gil.readable, _with_gil.writable):
    _function.restype, _function.argtypes = c_void_p, [py_object]
