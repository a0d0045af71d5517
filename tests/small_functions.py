"""A module of record functions, as a user of source2lmdb.py writes them, right and wrong."""

MODULE = """
import argparse, enum, io, os, signal, sys
from pathlib import Path
import numpy as np
from PIL import Image
from dataset import Boxes, Record

HERE = Path(__file__).parent
PIXELS = np.load(HERE / "pixels.npy")

def files(most: int = 9, name: str = "a"):
    for number in range(most):
        path = HERE / f"{number}.jpg"
        yield Record(f"{name}{number}", path.read_bytes() if number % 2 else path, ("cat", "dog", "cow")[number % 3])

def few(**options):
    yield from (record for record in files() if record.target != "cat")

def annotated(most: "int", rate: float = 0.5, place: "Path | os.Unknown" = "", *, flip: "bool" = False):
    assert (most, rate, place, flip) == (2, 0.25, "there", True)
    yield from files(most)

def slow():
    for record in files(600):
        if record.key == "a5" and (HERE / "bomb").exists():
            os.kill(os.getpid(), signal.SIGKILL)
        yield record

def mistaken():
    for number in range(8):
        yield Record(str(number), HERE / f"{number}.jpg", ("cat", "Dog")[number % 2 ^ 1])
        if number == 6:
            raise ValueError("boom\\nsecond")
mistaken.classes = ("cat", "dog")

def other():
    for number in range(9):
        yield Record(f"b{number}", HERE / f"{number}.jpg", "cat")

def arrays():
    yield Record("rgb", PIXELS)
    yield Record("gray", PIXELS[..., 0], None)
    yield Record("pil", Image.fromarray(PIXELS), -1)
    yield Record("palette", Image.fromarray(PIXELS).convert("P"))

def tags():
    for number, target in enumerate([["red", "blue"], [], {"blue"}, ("red", "red")]):
        yield Record(str(number), HERE / f"{number}.jpg", target)
tags.classes = ("blue", "green", "red")

def boxes():
    target = Boxes(((1, 2, 10, 12.5), (0, 0, 5, 5)), ("dog", "cat"), (False, True), (False, False))
    yield Record("0", HERE / "0.jpg", target)
    yield Record("1", HERE / "1.jpg", Boxes((), (), (), ()))

class Numbers:
    classes = ("a", "b", "c", "d")
    def __iter__(self):
        return (Record(str(n), HERE / f"{n}.jpg", np.int64(n % 3)) for n in range(4))

def damaged():
    for number in range(3):
        yield Record(str(number), (HERE / "1.bin").read_bytes() if number == 1 else HERE / "0.jpg", 0)

def bad(how: str):
    yield Record("0", HERE / "0.jpg", 0)
    if how == "raises":
        yield {}["missing"]
    yield {
        "path": Record("1", HERE / "none.jpg", 0), "tuple": ("1", b"", 0), "float": Record("1", b"", 0.5),
        "bool": Record("1", b"", True), "key": Record("", b"", 0), "kind": Record("1", b"", "name"),
        "array": Record("1", np.zeros((2, 2, 3)), 0), "again": Record("0", b"", 0), "label": Record("1", b"", 7),
    }[how]
bad.classes = ("only",)

def boxed(how: str):
    good = {"boxes": ((1, 2, 10, 12),), "labels": (0,), "difficult": (False,), "crowd": (False,), "areas": ()}
    yield Record("0", HERE / "0.jpg", Boxes(**{**good, **BOXED[how]}))
BOXED = {
    "right": {"boxes": ((20, 20, 400, 100),)}, "left": {"boxes": ((-3, -3, 4, 4),)},
    "far": {"boxes": ((0, 0, 1e300, 4),)}, "area": {"areas": (float("nan"),)},
    "number": {"boxes": 3}, "text": {"boxes": ("abcd",)}, "corner": {"boxes": ((0, 0, None, 4),)},
    "labels": {"labels": 0}, "difficult": {"difficult": None}, "crowd": {"crowd": ("no",)},
    "few": {"boxes": ((0, 0, 4),)}, "edge": {"boxes": np.array([[0, 0, 32, 24.0]]), "labels": np.array([0])},
}

class Word(str, enum.Enum):
    CAT = "cat"

def texts():
    for label in (np.array(["cat", "dog"])[1], Word.CAT):
        yield Record(np.str_(label.lower()), PIXELS, label)

def odd(how: str):
    file = io.BytesIO((HERE / "0.jpg").read_bytes()[:700] if how == "cut" else (HERE / "0.jpg").read_bytes())
    image = Image.open(file)
    if how == "closed":
        image.close()
    elif how == "exits":
        sys.exit(0)
    elif how == "parses":
        argparse.ArgumentParser().parse_args(["--help"])
    key = chr(0xD800) if how == "key" else "0"
    yield Record(key, image, {"label": chr(0xD800), "hot": np.array([0, 1, 0])}.get(how, 0))

def noted():
    yield Record("0", HERE / "0.jpg", int((HERE / "note").read_text()))

def gaps():
    for number in range(1, 7):
        yield Record(str(number), HERE / f"{number}.jpg", number)

def unordered():
    yield Record("0", HERE / "0.jpg", 0)
unordered.classes = {"a", "b"}

def unnamed():
    yield Record("0", HERE / "0.jpg", 0)
unnamed.classes = None

def nothing():
    return None

def twice():
    yield Record("0", HERE / "0.jpg", 0)
twice.classes = ("a", "a")
"""
