"""Names and numbers in messages."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Collection


def in_utf8(name: str) -> str:
    """A name whose bytes that are not UTF-8 are spelled `\\xNN`."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def is_encodable(name: str) -> bool:
    """Whether a text can be written down: not one with half of a character of UTF-16, such as `\ud800`."""
    try:
        os.fsencode(name)
    except UnicodeEncodeError:
        return False
    return True


def printable(name: str) -> str:
    """A name on one line: as `in_utf8`, line breaks and what else is not seen escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in in_utf8(name))


def shortened(text: str, letters: int = 40) -> str:
    """A text as `printable`, of so many letters at most."""
    shown = printable(text)
    return shown if len(shown) <= letters else f"{shown[: letters - 1]}…"


def spelled(name: str) -> str:
    """The name in quotes, and its letters in ASCII where they may look like others: 'é' ('e\\u0301')."""
    shown = printable(name)
    return f"'{shown}'" if shown.isascii() else f"'{shown}' ({name!a})"


def look_alike(names: Collection[str]) -> tuple[str, str] | None:
    """Two of the names that are the same letters in two forms of Unicode, as macOS and Linux write them."""
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(unicodedata.normalize("NFC", name), name)
        if other != name:
            return other, name
    return None


def first_few(names: Collection[str]) -> str:
    """The first five of them."""
    return ", ".join([*list(names)[:5], *(["..."] if len(names) > 5 else [])])


def counted(number: float, noun: str, plural: str = "") -> str:
    """`1 shard`, `2 shards`, `1,000 classes`, `2.5 epochs`."""
    several = plural or f"{noun}{'es' if noun.endswith('s') else 's'}"
    return f"{number:,.12g} {noun if number == 1 else several}"
