"""Teacher outputs on disk: a record of as many bytes for each view, in blocks of neighbouring samples.

::

    PATH/manifest.json           what the outputs depend on, and what a record holds
    PATH/weak/0007/00012.block   records of samples 12 x 4096 on, of the views of epoch 7 (from 0), and their CRC-32
    PATH/weak/prior/00012.block  the priors of these samples, where the layout has them
    PATH/weak/0007/*.part        records that a run has computed and that do not make up blocks yet

A block is written under another name and renamed, so it is whole or not there; what writes one is the same for any
order of blocks and any number of machines, so parts of a store are joined by copying them into one folder.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from isal import isal_zlib

from utils.errors import DataError, UsageError
from utils.files import lock, make_folder, parsed, write_atomically
from utils.text import first_few

BLOCK = 4096  # samples
PRIOR = -1  # in place of an epoch
_MANIFEST, _VERSION = "manifest.json", 1


class Shape(NamedTuple):
    """What a record holds.

    Attributes:
        classes: K, of the teacher's outputs.
        channels: of its `pooled` features, 0 where they are not kept.
        places: where its classes stand among those of the data; None where they are these.
        record: bytes of a record.
        prior: bytes of a sample's prior, 0 for none.
    """

    classes: int
    channels: int
    places: list[int] | None
    record: int
    prior: int


class Store:
    """The stored outputs of one teacher, for the views of N samples.

    Args:
        path: the folder; `begin` makes it where it is missing.
        facts: what the outputs depend on, by name; JSON values.
        samples: N.
        key: of the setting that names the folder, for messages.
        recompute: whether a damaged block counts as missing, and is removed.

    Attributes:
        shape: of its records; None before `begin` where the folder is new.

    Raises:
        UsageError: the folder holds outputs that depend on something else, all of which is named, or that nothing says
            the origin of.
        DataError: its manifest is damaged.
    """

    def __init__(
        self, path: Path, facts: Mapping[str, Any], samples: int, key: str = "store", *, recompute: bool = False
    ) -> None:
        self.path, self.samples, self._key, self._recompute = path, samples, key, recompute
        self._ours = json.loads(json.dumps({"version": _VERSION, "samples": samples, **facts}))
        self.shape = self._compared()

    def begin(self, shape: Shape) -> None:
        """Make the folder where it is new.

        Raises:
            UsageError: it cannot be written, or the teacher has outputs of another shape.
            DataError: the disk is full.
        """
        if self.shape is None:
            make_folder(self.path, self._key)
            content = {"depends_on": self._ours, "shape": shape._asdict()}
            with lock(self.path / ".lock", wait=True):
                self.shape = self._compared()  # another may have begun it since
                if self.shape is None:
                    text = json.dumps({**content, "sha256": _digest(content)}, indent=1)
                    write_atomically(self.path / _MANIFEST, text.encode())
                    self.shape = shape
        if self.shape != shape:
            raise UsageError(f"{self._key}: {self.path} holds records of {self.shape}, and the teacher has {shape}")

    @property
    def digest(self) -> str:
        """SHA-256 of what the outputs depend on."""
        return _digest(self._ours)

    @property
    def blocks(self) -> int:
        """How many there are of an epoch."""
        return -(-self.samples // BLOCK)

    def of_block(self, block: int) -> np.ndarray:
        """Its samples, int64."""
        return np.arange(block * BLOCK, min((block + 1) * BLOCK, self.samples))

    def is_whole(self, view: str, epoch: int) -> bool:
        """Whether all blocks of an epoch, or the priors, are there; sound, too, where damaged ones are removed."""
        if self._recompute:
            return all(self.read(view, epoch, block) is not None for block in range(self.blocks))
        folder = self._path(view, epoch, 0).parent
        return len([*folder.glob("*.block")]) == self.blocks

    def read(self, view: str, epoch: int, block: int) -> np.ndarray | None:
        """A block, with epoch `PRIOR` of the priors, uint8 [samples of it, bytes]; None where it is missing, or is
        damaged and is to be computed again.

        Raises:
            DataError: it is damaged.
        """
        path, size = self._path(view, epoch, block), self._size(epoch)
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _unreadable(path, error) from None
        records = _checked(content, len(self.of_block(block)) * size)
        if records is not None:
            return records.reshape(-1, size)
        if self._recompute:
            with suppress(FileNotFoundError):
                path.unlink()
            return None
        raise DataError(
            f"{path} is damaged: delete it, and it is computed again; or set on_damage=recompute beside the store"
        )

    def read_whole(self, view: str, epoch: int) -> np.ndarray | None:
        """All records of an epoch, or the priors, uint8 [N, bytes]; None where a block is missing.

        Raises:
            DataError: one is damaged.
        """
        whole = np.empty((self.samples, self._size(epoch)), np.uint8)
        for block in range(self.blocks):
            records = self.read(view, epoch, block)
            if records is None:
                return None
            whole[self.of_block(block)] = records
        return whole

    def write(self, view: str, epoch: int, block: int, records: np.ndarray) -> None:
        """Write a block, uint8 [samples of it, bytes].

        Raises:
            DataError: the disk is full or cannot be written.
        """
        assert records.shape == (len(self.of_block(block)), self._size(epoch))
        self._write(self._path(view, epoch, block), records.tobytes())

    def write_part(self, view: str, epoch: int, name: str, index: np.ndarray, records: np.ndarray) -> None:
        """Write records, uint8 [n, bytes], of the samples ``index``, int64 [n], that do not make up blocks yet.

        Raises:
            DataError: the disk is full or cannot be written.
        """
        content = index.astype("<i8").tobytes() + records.tobytes()
        self._write(self._path(view, epoch, 0).with_name(f"{name}.part"), content)

    def parts(self, view: str, epoch: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """What `write_part` has written, whole: samples and records.

        Raises:
            DataError: one cannot be read.
        """
        width = 8 + self._size(0)
        for path in sorted(self._path(view, epoch, 0).parent.glob("*.part")):
            try:
                content = _checked(path.read_bytes())
            except FileNotFoundError:  # another run made blocks of it
                continue
            except OSError as error:
                raise _unreadable(path, error) from None
            if content is not None and len(content) % width == 0:
                count = len(content) // width
                yield content[: 8 * count].view("<i8"), content[8 * count :].reshape(count, -1)

    def remove_parts(self, view: str, epoch: int) -> None:
        """Remove them, once blocks are made of them, and what a kill left of one.

        Raises:
            DataError: one cannot be removed.
        """
        for path in self._path(view, epoch, 0).parent.glob("*.part*"):
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise DataError(f"{path} cannot be removed: {error.strerror}: delete it by hand") from None

    def _compared(self) -> Shape | None:
        """What the manifest says of the records; None where there is none yet."""
        manifest = self.path / _MANIFEST
        if not manifest.exists():
            if found := next((path for kind in ("block", "part") for path in self.path.glob(f"*/*/*.{kind}")), None):
                raise UsageError(
                    f"{self._key}: {found} has no {manifest}, which says what it is of: restore that, or give another "
                    "folder"
                )
            if found := next((path for path in self.path.glob("*") if not path.name.startswith(".")), None):
                raise UsageError(f"{self._key}: {self.path} is no store, and holds {found.name}: give a new folder")
            return None
        try:
            content = parsed(manifest.read_bytes())
            checksum = content.pop("sha256", None)  # those of older versions have none
            if checksum is not None and checksum != _digest(content):
                raise ValueError("its checksum is another")
            theirs, shape = dict(content["depends_on"]), Shape(**content["shape"])
        except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
            raise DataError(
                f"{manifest} is damaged ({type(error).__name__}: {error}): restore it, or give another folder"
            ) from None
        ours = self._ours
        differing = [
            f"{name} {_shown(theirs, name)} there, {_shown(ours, name)} here"
            for name in {**theirs, **ours}
            if theirs.get(name, theirs) != ours.get(name, ours)
        ]
        if differing:
            raise UsageError(
                f"{self._key}: {self.path} holds other outputs: {first_few(differing)}. Give another folder, which is "
                "then filled, or the settings that it was filled with"
            )
        return shape

    def _size(self, epoch: int) -> int:
        assert self.shape is not None
        return self.shape.prior if epoch == PRIOR else self.shape.record

    def _path(self, view: str, epoch: int, block: int) -> Path:
        return self.path / view / ("prior" if epoch == PRIOR else f"{epoch:04d}") / f"{block:05d}.block"

    def _write(self, path: Path, content: bytes) -> None:
        if not (self.path / _MANIFEST).exists():
            raise DataError(
                f"{self.path / _MANIFEST}, which says what the outputs are of, has gone: give another folder"
            )
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(f"{path.parent} cannot be made: {error.strerror}") from None
        with lock(self.path / ".lock", wait=True):  # two runs may compute the same block at once
            write_atomically(path, content + isal_zlib.crc32(content).to_bytes(4, "little"))


def _unreadable(path: Path, error: OSError) -> DataError:
    return DataError(
        f"{path} cannot be read ({error.strerror}): let it be read, or delete it, and what it holds is computed again"
    )


def _checked(content: bytes, length: int | None = None) -> np.ndarray | None:
    """``content`` without its checksum, uint8, which may be written to; None where that is not its own, or it has
    another length."""
    body = content[:-4]
    if (length is not None and len(body) != length) or isal_zlib.crc32(body) != int.from_bytes(content[-4:], "little"):
        return None
    return np.frombuffer(bytearray(body), np.uint8)


def _digest(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _shown(facts: Mapping[str, Any], name: str) -> str:
    text = json.dumps(facts[name]) if name in facts else "not known"
    return text if len(text) <= 80 else f"{text[:76]} ..."
