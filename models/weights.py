"""Weights of a file: found in it and compared with its checksums. Nothing that a file holds is ever run."""

from __future__ import annotations

import hashlib
import json
import re
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from models import hub
from utils.distributed import print_on_first
from utils.errors import DataError, UsageError
from utils.files import expanded, sha256

A_FILE = "a .pth or .safetensors file"
_SUFFIXES = (".pth", ".pt", ".th", ".tar", ".bin", ".ckpt", ".safetensors")
# Where checkpoints keep a state dict, the first that is there; that of averaged weights has a name like `model_ema`.
_HOLDERS = ("state_dict", "model_state_dict", "model", "model_state", "student", "net", "network", "weights", "params")
_AVERAGED = re.compile(r"(^|[._])(ema|swa|averaged?)([._]|$)")
_INSIDE = re.compile(r"(?<![^.])(_orig_mod|_checkpoint_wrapped_module|_fsdp_wrapped_module)\.")  # of compile, FSDP, ...
_DENSENET = re.compile(r"(\.denselayer\d+\.(norm|relu|conv))\.(?=[12]\.)")  # of torchvision's published files
_HASH_IN_NAME = re.compile(r"-(?=[0-9a-f]*[a-f])([0-9a-f]{8,64})\.")  # with a letter: 20260131 is a date
_OTHER_FILES = {
    b"": "it is empty",
    b"version https://git-lfs": "a pointer of Git LFS in place of the file; fetch it with git lfs pull",
    b"<": "a web page; fetch the file itself",
    b"\x1f\x8b": "compressed by gzip; unpack it first",
    b"\x89HDF": "HDF5, as Keras writes it",
}
_STATE = "saved.state_dict() if isinstance(saved, torch.nn.Module) else saved.get('state_dict') or saved['model']"
_ABOUT = "limbeck"  # the entry of our own safetensors files that holds versions and a checksum
_DEPTH = 3  # of dictionaries in dictionaries
_ZIP, _PICKLE, _OLD_TORCH = b"PK\x03\x04", b"\x80", b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."


def file_of(weights: str) -> tuple[Path, str] | None:
    """The file that a setting names, and the part of it behind a `#`; None where it names published weights, or none.

    One on the hub is fetched.

    Raises:
        UsageError: it begins with the home folder of nobody, or cannot be fetched.
    """
    text, part = weights, ""
    if "#" in weights and not Path(weights).exists():
        text, _, part = weights.rpartition("#")
    if text.startswith(hub.PREFIX):
        return hub.fetched(text), part
    if "/" not in text and not text.endswith(_SUFFIXES):
        return None
    return expanded(text, "weights"), part


def read_weights(path: Path, part: str = "") -> OrderedDict[str, Tensor]:
    """A state dict out of a file, with the versions of its modules (PyTorch's `_metadata`) where the file has them.

    Args:
        path: a file of torch.save, old or new, or of safetensors.
        part: which of several, by its key in the file or the beginning of its names; when empty the averaged weights
            where there are some; the choice is printed.

    Raises:
        UsageError: the file cannot be read, or holds no such state dict.
        DataError: it is damaged.
    """
    content, beginning = _part(_read(path), part)
    found = dict(_state_dicts(content))
    if not found:
        keys = f"; its keys: {', '.join(map(str, list(content)[:12]))}" if isinstance(content, dict) else ""
        raise UsageError(f"{path} holds no state dict{keys}")
    averaged, others = ([label for label in found if is_averaged(label) is kind] for kind in (True, False))
    if averaged and others:
        print_choice(path, averaged[0], others[0])
    elif len(others) > 1 and others[0].rpartition(".")[2] not in _HOLDERS:
        raise UsageError(f"{path} holds {' and '.join(others)}: choose, such as weights={path}#{others[0]}")
    elif len(others) > 1:
        print_choice(path, others[0], others[1])
    state = found[(averaged or others)[0]]
    names = [name for name in state if name.startswith(beginning)]
    if not names:
        known = ", ".join(dict.fromkeys([*filter(None, found), *(name.partition(".")[0] for name in state)]))
        raise UsageError(f"{path}: nothing in it is called {part}; there is {known}")
    chosen = OrderedDict((name, state[name]) for name in names)
    chosen._metadata = getattr(state, "_metadata", {})  # type: ignore[attr-defined]
    return todays_names(chosen)


def todays_names(state: Mapping[str, Tensor]) -> OrderedDict[str, Tensor]:
    """``state`` without what compilers put into its names, and with DenseNet's present names for its early ones."""

    def renamed(name: str) -> str:
        return _DENSENET.sub(r"\1", _INSIDE.sub("", f"{name}."))[:-1]

    result = OrderedDict((renamed(name), value) for name, value in state.items())
    versions = getattr(state, "_metadata", {})
    known = versions.items() if isinstance(versions, dict) else ()
    result._metadata = {  # type: ignore[attr-defined]
        renamed(name): one for name, one in known if isinstance(name, str) and isinstance(one, dict)
    }
    return result


def print_choice(path: Path, used: str, other: str) -> None:
    """Print which of two state dicts in a file is used, and how to take the other."""
    used = used or "the first"
    print_on_first(f"{path} holds several sets of weights: {used} is used; weights={path}#{other} takes {other}")


def is_averaged(label: str) -> bool:
    """Whether a key, or the beginning of a name, is that of averaged weights."""
    return _AVERAGED.search(label) is not None


def packed(state: Mapping[str, Tensor]) -> bytes:
    """``state`` as the bytes of a safetensors file, with its modules' versions and a checksum of all.

    Tensors that several names share are written once for each.
    """
    tensors, held = {}, set[int]()
    for name, value in state.items():
        value = value.detach().cpu().contiguous()
        tensors[name] = value.clone() if value.untyped_storage().data_ptr() in held else value
        held.add(tensors[name].untyped_storage().data_ptr())
    versions = dict(getattr(state, "_metadata", {}))
    about = json.dumps({"sha256": _digest(tensors, versions), "versions": versions})
    return safetensors.torch.save(tensors, {_ABOUT: about})  # one entry: several are written in any order


def unsavable(state: Mapping[str, Any]) -> str:
    """What of ``state`` is no tensor that `packed` can write, in words; empty where there is none such."""
    for name, value in state.items():
        if not isinstance(value, Tensor):
            return f"{name}, an object of {type(value).__name__}"
        try:
            packed({name: value.detach().reshape(-1)[:0]})
        except (RuntimeError, TypeError, KeyError):  # sparse, quantised, of a type that safetensors does not know
            return f"{name}, a tensor of {value.layout} and {value.dtype}".replace("torch.", "")
    return ""


def _digest(tensors: Mapping[str, Tensor], versions: dict[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps(versions).encode())
    for name, value in sorted(tensors.items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _part(content: Any, part: str) -> tuple[Any, str]:
    """The dictionary in ``content`` that ``part`` leads to, and with what the names in it must begin."""
    rest = part.split(".") if part else []
    while rest and isinstance(content, dict) and isinstance(content.get(rest[0]), dict):
        content = content[rest.pop(0)]
    return content, "".join(f"{name}." for name in rest)


def _state_dicts(content: object, label: str = "", depth: int = 0) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """The state dicts in a checkpoint, by their keys in it (joined by dots)."""
    if not isinstance(content, dict) or depth > _DEPTH:
        return
    if content and all(isinstance(name, str) and isinstance(value, Tensor) for name, value in content.items()):
        yield label, content
        return
    values = {key: value for key, value in content.items() if isinstance(key, str)}
    held = {key: list(_state_dicts(value, f"{label}.{key}".lstrip("."), depth + 1)) for key, value in values.items()}
    averaged = [key for key in held if is_averaged(key)]
    plain = [key for key in _HOLDERS if held.get(key)] or [key for key in held if key not in averaged]
    for key in (*plain, *averaged):
        yield from held[key]


def _read(path: Path) -> Any:
    """What a file holds, once its checksums are found right."""
    try:
        if path.is_fifo():  # which opens when somebody writes to it
            raise UsageError(f"{path} is a pipe; give {A_FILE}")
        with path.open("rb") as file:
            start = file.read(32)
    except FileNotFoundError:
        of_a_run = path.name == "student.safetensors"
        do = f"train the run {path.parent.name} first" if of_a_run else f"put {A_FILE} there"
        raise UsageError(f"{path}: no such file; {do} or give another path") from None
    except IsADirectoryError:
        raise UsageError(f"{path} is a folder; name a file in it, of a run student.safetensors") from None
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None
    check_name(path)
    for magic, remark in _OTHER_FILES.items():
        if start.lstrip().startswith(magic) if magic else not start:
            raise UsageError(f"{path}: not a weights file: {remark}")
    if start.startswith(_ZIP):
        return _read_zip(path)
    if start.startswith(_PICKLE):
        return _read_old(path, start)
    if start[8:9] == b"{":
        return _read_safetensors(path)
    raise UsageError(f"{path}: not a weights file: neither torch.save nor safetensors wrote it")


def check_name(path: Path) -> None:
    """Compare a file with the checksum in its name, as in `resnet18-f37072fd.pth`.

    Raises:
        DataError: they differ.
    """
    if (named := _HASH_IN_NAME.search(path.name)) and not sha256(path).startswith(named[1]):
        raise DataError(
            f"{path} is damaged: its SHA-256 does not begin with {named[1]}, as its name does; fetch it again, or "
            "rename it if that is no checksum"
        )


def _read_safetensors(path: Path) -> OrderedDict[str, Tensor]:
    try:
        with safetensors.safe_open(path, "pt") as file:
            about = json.loads((file.metadata() or {}).get(_ABOUT, "{}"))
            state = OrderedDict((name, file.get_tensor(name)) for name in file.keys())  # noqa: SIM118
        state._metadata = about.get("versions", {})  # type: ignore[attr-defined]
        damaged = "sha256" in about and about["sha256"] != _digest(state, state._metadata)  # type: ignore[attr-defined]
    except Exception as error:  # of Rust
        raise DataError(f"{path} is damaged ({error}): fetch or write it again") from None
    if damaged:
        raise DataError(f"{path} is damaged: its checksum differs; write it again")
    return state


def _read_zip(path: Path) -> Any:
    try:
        with zipfile.ZipFile(path) as archive:
            names = {name.rpartition("/")[2] for name in archive.namelist()}
            damaged = archive.testzip()  # torch.load itself does not compare the CRCs
    except Exception as error:  # damage may raise any
        damaged, names = str(error) or type(error).__name__, set()
    if damaged:
        raise DataError(f"{path} is damaged ({damaged}): fetch or write it again")
    if "constants.pkl" in names:
        raise UsageError(_refusal(path, "a TorchScript program", "torch.jit.load", "saved.state_dict()"))
    if "data.pkl" not in names:
        raise UsageError(f"{path}: not a weights file: a zip archive that torch.save did not write")
    return _unpickled(path)


def _read_old(path: Path, start: bytes) -> Any:
    try:
        return _unpickled(path)
    except UsageError:
        raise
    except Exception as error:  # a damaged pickle may raise any
        reason = " ".join(str(error).split()) or type(error).__name__
        if start.startswith(_OLD_TORCH):
            raise DataError(f"{path} is damaged ({reason}): fetch or write it again") from None
        raise UsageError(f"{path}: not a weights file that can be read safely: {reason}") from None


def _unpickled(path: Path) -> Any:
    """What torch.save wrote, with stand-ins for the harmless objects that trainers put beside weights."""
    try:
        with torch.serialization.safe_globals(_HARMLESS), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of other pickle protocols
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        if kind := re.search(r"GLOBAL (\S+)|got <class '([\w.]+)'>", str(error)):
            what = f"an object of {kind[1] or kind[2]}, which may run code"
            raise UsageError(_refusal(path, what, "torch.load", _STATE)) from None
        if re.search(r"Unsupported operand", str(error)):
            what = "a pickle of another protocol than torch.save's own"
            raise UsageError(_refusal(path, what, "torch.load", "saved")) from None
        raise


def _refusal(path: Path, what: str, load: str, state: str) -> str:
    """Why a file is not read, and three lines that take the weights out of it."""
    options = ", weights_only=False" if load == "torch.load" else ""
    return (
        f"{path}: not a weights file that can be read safely: it holds {what}. If you trust it, take its weights out:\n"
        f"    import torch\n"
        f"    saved = {load}({str(path)!r}, map_location='cpu'{options})\n"
        f"    torch.save({state}, {str(path.with_name(f'{path.stem}_weights.pth'))!r})"
    )


class _Unread:
    """Stands for an object that is no weight: whatever the file holds of it, nothing is kept and nothing is run."""

    def __new__(cls, *_args: object) -> _Unread:
        return super().__new__(cls)

    def __setstate__(self, state: object) -> None:
        pass


def _dictionary(*_args: object) -> dict:
    return {}


_PATHS = ("Path", "PosixPath", "WindowsPath", "PurePath", "PurePosixPath", "PureWindowsPath")
_HARMLESS: list[Any] = [
    *((_dictionary, name) for name in ("collections.defaultdict", "builtins.dict")),
    *(
        (_Unread, name)
        for name in (
            *("argparse.Namespace", "types.SimpleNamespace", "torch.torch_version.TorchVersion"),
            *(f"{module}.{name}" for module in ("pathlib", "pathlib._local") for name in _PATHS),
            *(f"datetime.{name}" for name in ("date", "datetime", "time", "timedelta", "timezone")),
            *(
                f"builtins.{name}"
                for name in ("bool", "float", "frozenset", "int", "list", "range", "slice", "str", "tuple")
            ),
            *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("scalar", "_reconstruct")),
            *("numpy.dtype", "numpy.ndarray"),
            *(f"numpy.{name}" for name in sorted({np.dtype(code).type.__name__ for code in np.typecodes["All"]})),
        )
    ),
]
