"""The C sources of the codec and the libraries made of them. Of the standard library alone: setup.py reads it too."""

from __future__ import annotations

import hashlib
from pathlib import Path

SOURCES = Path(__file__).parent / "src"
LIBRARY = Path(__file__).parent / "_codec.so"
FAST = Path(__file__).parent / "_codec_v3.so"  # the same for x86-64-v3 (AVX2, BMI2, MOVBE), of x86-64 alone


def digest() -> str:
    """SHA-256 of names and contents of the sources, in hexadecimal: the library carries that of its own."""
    sha256 = hashlib.sha256()
    for path in sorted(SOURCES.glob("*.[ch]")):
        content = path.read_bytes()
        sha256.update(b"%s %d\n%s" % (path.name.encode(), len(content), content))
    return sha256.hexdigest()
