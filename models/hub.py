"""Weights on the Hugging Face hub: `hf://user/repo[/file][@revision]`, fetched once into the cache of its library."""

from __future__ import annotations

import re
from pathlib import Path

from utils.errors import UsageError

PREFIX = "hf://"
_NAME = re.compile(r"hf://(?P<repo>[^/@]+/[^/@]+)(/(?P<file>[^@]+))?(@(?P<revision>.+))?")
_FILES = ("model.safetensors", "pytorch_model.bin", "student.safetensors")  # of repositories that hold one network


def fetched(name: str) -> Path:
    """The file that ``name`` stands for, in the cache; without a network the one that lies there already.

    Without a file in it, the first that there is of those that hold the weights of a repository's one network.

    Raises:
        UsageError: it is no such name, the library is missing, or the file cannot be had.
    """
    parts = _NAME.fullmatch(name)
    if parts is None:
        raise UsageError(f"weights={name}: expected hf://user/repo, hf://user/repo/file or one with @revision behind")
    try:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError, HFValidationError, LocalEntryNotFoundError
    except ImportError:
        raise UsageError(f"weights={name} needs huggingface-hub: pip install huggingface-hub") from None
    files = (parts["file"],) if parts["file"] else _FILES
    unreachable = None
    for file in files:
        try:
            return Path(hf_hub_download(parts["repo"], file, revision=parts["revision"]))
        except LocalEntryNotFoundError as error:  # neither in the cache nor, without a network, on the hub
            unreachable = error
        except EntryNotFoundError:
            continue
        except (OSError, HFValidationError) as error:
            raise UsageError(f"weights={name}: {_first_line(error)}") from None
    if unreachable is not None:
        raise UsageError(
            f"weights={name}: not in the cache, and the hub cannot be reached ({_first_line(unreachable)}): fetch it "
            f"on another machine with hf download {parts['repo']}, and set HF_HOME to its cache, or weights to the file"
        )
    raise UsageError(f"weights={name}: it has no {' or '.join(files)}: name a file, as in {PREFIX}{parts['repo']}/FILE")


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
