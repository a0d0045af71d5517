"""How the image of a record is stored: as JPEG, or as raw pixels."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace

from dataset.jpeg.damage import sound_pixels
from dataset.jpeg.fit import Fitting, fit
from dataset.jpeg.images import image_size
from dataset.jpeg.raw import encode_raw, raw_pixels
from dataset.store.record import Boxes, Record, resized
from utils.errors import UsageError

_LARGEST_RAW = 256  # pixels a side


@dataclass(frozen=True)
class Stored:
    """A record as it goes into a shard, its image ``height`` x ``width`` pixels, and a remark on what was done."""

    record: Record
    height: int
    width: int
    remark: str | None


class Storage(ABC):
    """A way of storing images."""

    @property
    def keeps_size(self) -> bool:
        """Whether an image has as many pixels as its file."""
        return True

    @abstractmethod
    def store(self, record: Record) -> Stored:
        """The record with its image file as it is to be stored.

        Raises:
            BadImage: the file is damaged, no image, or too large.
        """

    @abstractmethod
    def map_bytes(self, total: int, images: int) -> int:
        """Size of the LMDB file for ``images`` of ``total`` bytes; it grows if that is not enough."""

    @abstractmethod
    def settings(self) -> dict[str, object]:
        """What decides the bytes: these must be the same in every run on a folder."""

    @abstractmethod
    def described(self, *, shuffle: bool, skip_bad: bool) -> dict[str, object]:
        """All settings of a packing, for the index."""


@dataclass(frozen=True)
class AsJpeg(Storage):
    """JPEG files, as `fit` makes them."""

    fitting: Fitting

    @property
    def keeps_size(self) -> bool:
        """Whether images are not shrunk."""
        return self.fitting.image_size is None

    def store(self, record: Record) -> Stored:
        """The record with a JPEG file, and boxes in its pixels.

        Raises:
            BadImage: as `fit`.
        """
        image, height, width, remark = fit(record.image, self.fitting)
        target = record.target
        if isinstance(target, Boxes) and not self.keeps_size:
            target = resized(target, image_size(record.image), (height, width))
        return Stored(replace(record, image=image, target=target), height, width, remark)

    def map_bytes(self, total: int, images: int) -> int:
        """Every value takes whole 4 KiB pages, and tiles some bytes more."""
        return total + (total >> 4) + 8192 * images + (1 << 20)

    def settings(self) -> dict[str, object]:
        """All but whether images are checked."""
        return {name: value for name, value in vars(self.fitting).items() if name != "check"}

    def described(self, *, shuffle: bool, skip_bad: bool) -> dict[str, object]:
        """All settings of a packing, for the index."""
        how = self.fitting
        size = {"image_size": how.image_size, "longest_side": how.longest_side, "quality": how.quality}
        return {**size, "skip_bad": skip_bad, "tiles": how.tiles, "check": how.check, "shuffle": shuffle}


@dataclass(frozen=True)
class AsPixels(Storage):
    """Raw pixels, for small images."""

    def store(self, record: Record) -> Stored:
        """The record with a binary PPM.

        Raises:
            BadImage: the file is damaged or no image.
            UsageError: it is too large.
        """
        pixels, remark = raw_pixels(record.image), None
        if pixels is None:
            pixels, remark = sound_pixels(record.image)
        height, width, _ = pixels.shape
        if max(height, width) > _LARGEST_RAW:
            size = f"{width} x {height} pixels"
            jpeg = "img2lmdb.py packs such as JPEG, and so does source2lmdb.py without --pixels"
            raise UsageError(f"{record.key}: {size} are too many to store raw; {jpeg}")
        return Stored(replace(record, image=encode_raw(pixels)), height, width, remark)

    def map_bytes(self, total: int, images: int) -> int:
        """Two pages an image, which is enough for 32 x 32 pixels."""
        return 8192 * images + (1 << 20)

    def settings(self) -> dict[str, object]:
        """That they are raw."""
        return {"pixels": "raw"}

    def described(self, *, shuffle: bool, skip_bad: bool) -> dict[str, object]:
        """That they are raw, and what is not usual."""
        unusual = {"skip_bad": skip_bad, "shuffle": shuffle}
        return {**self.settings(), **{name: True for name, value in unusual.items() if value}}
