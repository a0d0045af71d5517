"""Errors of libraries about which a user can do something."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from utils.errors import DataError, UsageError

_NO_MEMORY = ("can't allocate memory", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "Cannot allocate memory")
_CUDNN = ("cuDNN error", "CUDNN_STATUS")
_LESS = (
    "lower data.batch_size (data.val_batch_size if it was the validation), or raise train_params.accumulate, which "
    "works through the same batch in parts"
)


@contextmanager
def advising() -> Iterator[None]:
    """Give one line in place of what libraries raise.

    Raises:
        UsageError: memory is short, or cuDNN failed, which is mostly the same; with what to change.
        DataError: a file cannot be read or written.
    """
    try:
        yield
    except DataError:
        raise
    except (RuntimeError, MemoryError, OSError) as error:
        first = str(error).partition("\n")[0][:200]
        if _is_memory(error):
            raise UsageError(f"memory is short ({first}): {_LESS}") from error
        if any(text in str(error) for text in _CUDNN):
            raise UsageError(f"cuDNN failed ({first}): mostly memory is short, then {_LESS}") from error
        if isinstance(error, OSError) and error.filename is not None:
            raise DataError(f"{error.filename}: {error.strerror}") from error
        raise


def _is_memory(error: BaseException) -> bool:
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    known = isinstance(error, MemoryError | torch.OutOfMemoryError)
    return known or any(text in str(error) for text in _NO_MEMORY)
