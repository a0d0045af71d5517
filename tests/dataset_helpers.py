"""Tiny image folders, images of every kind and packing through the command line."""

import io
from pathlib import Path

import numpy as np
from conftest import call
from hypothesis import HealthCheck, settings
from PIL import Image

ORIENTATION = 0x0112  # the EXIF tag


def examples(number: int):
    """That many examples of a property, however slow the machine is."""
    return settings(max_examples=number, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def pixels(seed: int, height: int = 24, width: int = 32, channels: int = 3) -> np.ndarray:
    """A smooth image with some noise, uint8 [height, width, channels]."""
    generator = np.random.default_rng(seed)
    coarse = Image.fromarray(generator.integers(0, 256, (4, 4, channels), np.uint8).squeeze())
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)).reshape(height, width, channels)
    return np.clip(smooth + generator.normal(0, 8, smooth.shape), 0, 255).astype(np.uint8)


def image_bytes(
    seed: int, height: int = 24, width: int = 32, *, kind: str = "JPEG", mode: str = "RGB", **save
) -> bytes:
    """An image file; for CMYK and gray in that mode."""
    image = Image.fromarray(pixels(seed, height, width)).convert(mode)
    file = io.BytesIO()
    image.save(file, kind, **save)
    return file.getvalue()


def rotated_by_tag(seed: int) -> bytes:
    """A JPEG whose EXIF tag asks a viewer to turn it by 90 degrees."""
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    return image_bytes(seed, exif=exif)


def damaged_in_midstream(data: bytes) -> bytes:
    """The JPEG with an end-of-image marker and noise in the middle of its entropy-coded data."""
    middle = data.index(b"\xff\xda") + (len(data) - data.index(b"\xff\xda")) // 2
    return data[:middle] + b"\xff\xd9" + b"\x55" * 20 + data[middle + 22 :]


def write_tree(root: Path, files: dict[str, bytes]) -> Path:
    """Write ``files`` (path below ``root``: content); returns ``root``."""
    for name, data in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return root


def image_tree(root: Path, classes: int = 2, images: int = 3, split: str = "train") -> dict[str, bytes]:
    """Write ``split/class<i>/<j>.JPEG``; returns path below the split folder: content."""
    files = {
        f"class{label}/{number:03d}.JPEG": image_bytes(100 * label + number, 20 + number, 30 - label)
        for label in range(classes)
        for number in range(images)
    }
    write_tree(root / split, files)
    return files


def make_lists(root: Path, code: int = 0):
    """Run mk_img_list.py on ``root``/images, lists to ``root``/lists."""
    words = ("--image_path", str(root / "images"), "--output_path", str(root / "lists"))
    return call("dataset/mk_img_list.py", *words, code=code)


def packing_command(root: Path, *more: str, output: str = "lmdb", split: str = "train") -> list[str]:
    """The arguments of img2lmdb.py for ``root``."""
    words = ["--image_path", str(root / "images"), "--list_path", str(root / "lists")]
    words += ["--output_path", str(root / output), "--split", split]
    return ["dataset/img2lmdb.py", *words, *(more if "--num_workers" in more else (*more, "--num_workers", "1"))]


def pack_images(root: Path, *more: str, output: str = "lmdb", split: str = "train", code: int = 0):
    """Run img2lmdb.py; returns the finished process."""
    return call(*packing_command(root, *more, output=output, split=split), code=code)


def pack_in_this_process(monkeypatch) -> None:
    """Let the packing engine work without processes of its own, each of which takes a second to start."""
    monkeypatch.setattr("dataset.store.packing.work_through", lambda work, jobs, *_: [work(job) for job in jobs])
    monkeypatch.setattr("dataset.store.packing.advance", lambda *_: None)


def shard_bytes(folder: Path) -> dict[str, bytes]:
    """Every shard and column file of a packed split by name, and its index."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix in (".lmdb", ".npz", ".json")}


def flip_bit(path: Path, position: int, bit: int = 0) -> None:
    """Flip one bit of a file."""
    data = bytearray(path.read_bytes())
    data[position] ^= 1 << bit
    path.write_bytes(data)
